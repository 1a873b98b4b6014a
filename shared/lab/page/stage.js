// The stage: the servers on a ring, the messages on their way, the walls.

import { s, name, termClass, pattern, patterns, button, label, calm } from './dom.js';
import { client as clientName } from './words.js';

let READY = 34; // the radius of a server

// A link is reached with the keyboard through the menu of its servers: it has no
// place of its own in the order of the page.
function mouse(e, label, act) {
  button(e, label, act).setAttribute('tabindex', '-1');
  return e;
}

const title = (m) => `${m.title}${m.from ? ` from ${name(m.from)}` : ''}${m.to ? ` to ${name(m.to)}` : ''}`;

export function makeStage(root, app) {
  const svg = s('svg', { class: 'stage', role: 'group', 'aria-label': 'The servers and the messages on their way' });
  const layers = {};
  svg.append(patterns('st'));
  for (const l of ['sides', 'links', 'walls', 'clients', 'joint', 'servers', 'messages']) svg.append(layers[l] = s('g', { class: l }));
  root.append(svg);

  let width = 0, height = 0, narrow = false, film = null, places = new Map(), radius = 0, center = [0, 0], shown = new Map();
  let lastIndex = -2, lastFilm = null, lastKey = '';

  function layout() {
    width = root.clientWidth; height = root.clientHeight;
    if (!width || !height) return;
    svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    narrow = width < 560 && height > 0.68 * width;
    const small = narrow || height < 250;
    const many = film.ids.length > 6;
    READY = small ? 27 : many ? 27 : 34;
    const angles = film.ids.map((_, i) => -Math.PI / 2 + 2 * Math.PI * i / film.ids.length);
    const top = small ? 64 : 74, bottom = narrow ? 68 : small ? 50 : 54, lowest = Math.max(0.2, ...angles.map(Math.sin));
    radius = (height - top - bottom) / (1 + lowest);
    if (narrow) radius = Math.min(radius, width / 2 - 60);
    const stretch = narrow ? 1 : Math.max(1, Math.min(radius < 70 ? 5 : many ? 2.9 : 2.5, (width / 2 - (width < 700 ? 150 : many ? 180 : 230)) / radius));
    center = [width / 2, top + radius + (height - top - bottom - radius * (1 + lowest)) / 2];
    places = new Map(film.ids.map((id, i) => [id, [center[0] + radius * stretch * Math.cos(angles[i]), center[1] + radius * Math.sin(angles[i])]]));
    // In a low window the circles shrink before they touch.
    let nearest = Infinity;
    const all = [...places.values()];
    all.forEach(([x1, y1], i) => { for (const [x2, y2] of all.slice(0, i)) nearest = Math.min(nearest, Math.hypot(x1 - x2, y1 - y2)); });
    READY = Math.max(14, Math.min(READY, nearest / 2 - 8));
    svg.classList.toggle('tight', READY < 34);
    svg.classList.toggle('tiny', READY < 22);
    lastIndex = -2;
  }

  new ResizeObserver(() => { if (film) { layout(); app.redraw(); } }).observe(root);

  // edge keeps words inside the picture, near its edge.
  const edge = (x, text) => {
    const room = Math.min(x, width - x) - 6;
    return 3.6 * text.length < room ? {} : x < width / 2 ? { x: -room, style: 'text-anchor:start' } : { x: room, style: 'text-anchor:end' };
  };

  // A client stands outside the ring, at one of a few places, with its head and its
  // words inside the picture.
  const slots = () => {
    const x = narrow ? 34 : 62, list = [];
    for (const part of !narrow ? [0.14, 0.86, 0.5] : film.ids.length > 6 ? [0.84, 0.12, 0.5] : [0.12, 0.84, 0.5]) {
      const y = Math.max(40, Math.min(height * part, height - 44));
      list.push([x, y], [width - x, y]);
    }
    return list;
  };
  let seats = new Map();
  function seat(id, busy) {
    if (seats.has(id)) return seats.get(id);
    const free = slots();
    const taken = new Set();
    for (const [other, k] of seats) if (busy.has(other)) taken.add(k); else seats.delete(other);
    for (let k = 0; k < free.length; k++) if (!taken.has(k)) { seats.set(id, k); return k; }
    return -1;
  }

  // The arc shows what is left of the election timeout; it starts at the top and
  // shrinks as time passes.
  function arcPath(left) {
    const r = READY + 7, a = 2 * Math.PI * Math.min(left, 0.9999);
    return left <= 0 ? '' : `M0,${-r} A${r},${r} 0 ${a > Math.PI ? 1 : 0} 1 ${(r * Math.sin(a)).toFixed(2)},${(-r * Math.cos(a)).toFixed(2)}`;
  }

  // The disk is full while something is only in memory, and empties when it is synced.
  const EMPTIES = 3e5;
  function drawDisk(id, st, left) {
    const [index, hard] = st.unsynced;
    const what = [index && `entries from ${index} on`, hard && 'the term or the vote'].filter(Boolean).join(' and ');
    const g = s('g', { class: `disk${what ? ' unsynced' : ''}`, transform: `translate(${(left ? -1 : 1) * (READY * 0.82 + 10)},${READY * 0.82 + 2})${READY < 34 ? ' scale(.8)' : ''}` },
      s('title', {}, what ? `${name(id)} has ${what} only in memory; a power cut would lose that` : `All that ${name(id)} must remember is on its disk`),
      s('path', { class: 'case', d: 'M-9,-8 v16 a9,3.5 0 0 0 18,0 v-16' }),
      s('path', { class: 'fill' }),
      s('ellipse', { class: 'lid', cx: 0, cy: -8, rx: 9, ry: 3.5 }));
    return g;
  }
  const diskPath = (level) => (level <= 0.02 ? '' : `M-9,${8 - 16 * level} V8 a9,3.5 0 0 0 18,0 V${8 - 16 * level} a9,3.5 0 0 1 -18,0 Z`);

  let moving = new Map(); // server → the parts of it that change with time
  function drawMoving(view, t) {
    for (const [id, m] of moving) {
      if (m.arc) {
        const left = film.timeLeft(m.st, t);
        m.arc.setAttribute('d', arcPath(left));
        m.arc.classList.toggle('soon', left < 0.25);
      }
      if (m.disk) {
        const [index, hard] = m.st.unsynced, since = film.synced(id, t);
        m.disk.setAttribute('d', diskPath(index || hard ? 1 : calm() ? 0 : Math.max(0, 1 - since / EMPTIES)));
      }
    }
  }

  function drawServer(id, st, acting) {
    const [x, y] = places.get(id);
    const plain = !film.roles, first = plain && app.stage.appointed && id === 1;
    const role = !st.up ? 'down' : st.paused ? 'paused' : first ? 'leader' : st.role || 'follower';
    const member = !st.config || [...(st.config.now || []), ...(st.config.next || [])].includes(id);
    const learner = st.config && (st.config.learners || []).includes(id);
    const leads = st.up && (st.role === 'leader' || first);
    const word = role === 'paused' ? `${st.role ? st.role + ', ' : ''}paused` : role === 'follower' && learner ? 'learner' : role === 'follower' && !member ? 'not a member' : role;
    const selected = app.selected?.type === 'server' && app.selected.id === id;
    const g = s('g', { class: `server ${role} ${termClass(st.up ? st.term : 0)}${acting ? ' acting' : ''}${selected ? ' selected' : ''}`, transform: `translate(${x},${y})`, 'data-server': id });
    g.append(s('circle', { r: READY + 13, class: 'halo' }));
    const arc = film.timeLeft(st, 0) !== null && s('path', { class: 'left' });
    if (arc) g.append(s('circle', { r: READY + 7, class: 'timeout' }), arc);
    if (leads) g.append(s('circle', { r: READY + 6, class: 'outline' }), s('path', { class: 'crown', transform: `translate(0,${-READY - 10}) scale(${READY / 34})`, d: 'M-15,0 l-4,-17 l9,7 l10,-12 l10,12 l9,-7 l-4,17 z' }));
    g.append(s('circle', { r: READY, class: 'body' }), s('circle', { r: READY, class: 'weave', fill: st.up ? pattern('st', st.term) : 'none' }));
    const voted = st.up && st.vote && !leads && st.vote !== id;
    if (!plain) g.append(s('text', { class: 'small', y: voted ? -14 : -12 }, 'term'), s('text', { class: 'number', y: !voted ? 12 : READY < 34 ? 4 : 8 }, st.term || 0));
    if (voted) g.append(s('text', { class: 'small voted', y: READY - (READY < 34 ? 10 : 11) }, `vote ${name(st.vote)}`));
    const arm = 0.7 * READY;
    if (role === 'down') g.append(s('path', { class: 'cross', d: `M${-arm},${-arm} L${arm},${arm} M${arm},${-arm} L${-arm},${arm}` }));
    if (role === 'paused') g.append(s('path', { class: 'bars', d: `M${-arm / 3},${-arm * 0.67} V${arm * 0.67} M${arm / 3},${-arm * 0.67} V${arm * 0.67}` }));
    if (role === 'candidate') {
      const all = (st.config?.now || film.ids), votes = new Set(st.votes);
      all.forEach((v, i) => {
        const px = (i - (all.length - 1) / 2) * 13;
        g.append(s('circle', { cx: px, cy: -READY - 15, r: 5, class: votes.has(v) ? 'vote got' : 'vote' }));
      });
      g.append(s('text', { class: 'small loud', y: -READY - 25 }, `${votes.size} of ${all.length} votes`));
    }
    const outside = x < center[0] - 1;
    const disk = film.saves.size && st.up && drawDisk(id, st, outside);
    if (disk) g.append(disk);
    moving.set(id, { st, arc, disk: disk && disk.querySelector('.fill') });
    if (narrow) {
      g.append(s('text', { class: 'name', y: READY + 24 }, name(id), s('tspan', { class: 'role' }, ' ' + word)));
    } else {
      // The words stand on the outer side, where no message passes.
      const dx = (outside ? -1 : 1) * (READY + 20);
      const at = (dy, cls, text) => s('text', { class: cls, x: dx, y: dy, style: `text-anchor:${outside ? 'end' : 'start'}` }, text);
      const up = Math.abs(x - center[0]) < 1 ? 16 : 0; // the links of the topmost server pass its words
      g.append(at(-2 - up, 'name', name(id)), at(14 - up, 'name role', word));
      if (st.up && st.config?.next?.length) {
        const old = st.config.now.includes(id), next = st.config.next.includes(id);
        if (old || next) g.append(at(29 - up, 'name sides', old && next ? 'old and new' : old ? 'only old' : 'only new'));
      }
    }
    const also = [voted && `voted for ${name(st.vote)}`, (st.unsynced[0] || st.unsynced[1]) && 'not synced', 'press Enter for what can be done to it'].filter(Boolean);
    return button(g, also.join(', '), (e, ev) => app.choose({ type: 'server', id }, e, ev));
  }

  function drawLinks(cuts) {
    layers.links.replaceChildren(); layers.walls.replaceChildren(); layers.sides.replaceChildren();
    const ids = film.ids;
    for (let i = 0; i < ids.length; i++) for (let j = i + 1; j < ids.length; j++) {
      const a = ids[i], b = ids[j], [x1, y1] = places.get(a), [x2, y2] = places.get(b);
      const ab = cuts.has(`${a}>${b}`), ba = cuts.has(`${b}>${a}`);
      const selected = app.selected?.type === 'link' && app.selected.from === a && app.selected.to === b;
      const g = s('g', { class: `link${ab && ba ? ' cut' : ab || ba ? ' half' : ''}${selected ? ' selected' : ''}` },
        s('line', { x1, y1, x2, y2, class: 'grip' }), s('line', { x1, y1, x2, y2, class: 'wire' }));
      layers.links.append(mouse(g, `The link between ${name(a)} and ${name(b)}${ab || ba ? ', cut' : ''}`, (e, ev) => app.choose({ type: 'link', from: a, to: b }, e, ev)));
      const angle = Math.atan2(y2 - y1, x2 - x1) * 180 / Math.PI;
      const wall = (at, turn) => layers.walls.append(s('g', { class: 'wall', transform: `translate(${x1 + (x2 - x1) * at},${y1 + (y2 - y1) * at}) rotate(${angle + turn})` },
        s('path', { d: turn === null ? '' : 'M0,-13 V13' }), turn !== null && ab !== ba && s('path', { class: 'way', d: 'M-16,0 h10 m-5,-4 l5,4 l-5,4' })));
      if (ab && ba) wall(0.5, 0);
      else if (ab) wall(0.62, 0);
      else if (ba) wall(0.38, 180);
    }
    // the sides of a partition: servers that still reach each other
    const side = new Map();
    let sides = 0;
    for (const id of ids) {
      if (side.has(id)) continue;
      const todo = [id];
      side.set(id, sides);
      while (todo.length) {
        const a = todo.pop();
        for (const b of ids) if (!side.has(b) && a !== b && !(cuts.has(`${a}>${b}`) && cuts.has(`${b}>${a}`))) { side.set(b, sides); todo.push(b); }
      }
      sides++;
    }
    if (sides < 2) return;
    const borders = ids.filter((id, i) => side.get(id) !== side.get(ids[(i + 1) % ids.length])).length;
    if (borders > sides) {
      // The sides lie across each other: thick lines show who still reaches whom.
      for (let i = 0; i < ids.length; i++) for (let j = i + 1; j < ids.length; j++) {
        if (side.get(ids[i]) !== side.get(ids[j])) continue;
        const [x1, y1] = places.get(ids[i]), [x2, y2] = places.get(ids[j]);
        layers.sides.append(s('line', { class: 'bond', x1, y1, x2, y2 }));
      }
      return;
    }
    for (let k = 0; k < sides; k++) {
      const points = ids.filter((id) => side.get(id) === k).map((id) => places.get(id));
      const d = 'M' + points.map((p) => p.join(',')).join('L') + (points.length === 1 ? 'h.1' : 'Z');
      layers.sides.append(s('path', { d, class: `edge`, 'stroke-width': 2 * READY + 36 }), s('path', { d, class: 'floor', 'stroke-width': 2 * READY + 32 }));
    }
  }

  // drawJoint says which two majorities must agree while the members change.
  function drawJoint(index) {
    layers.joint.replaceChildren();
    const all = film.ids.map((id) => film.stateAt(id, index)).filter((st) => st.up && st.config);
    const newest = Math.max(...all.map((st) => st.term));
    const st = all.find((x) => x.role === 'leader' && x.term === newest && x.config.next?.length);
    if (!st) return;
    const list = (ids) => ids.map(name).join(' ');
    const lines = ['joint configuration: it takes', `a majority of ${list(st.config.now)}`, `and one of ${list(st.config.next)}`];
    lines.forEach((text, i) => layers.joint.append(s('text', { x: width - 12, y: (narrow ? height - 42 : 22) + 15 * i, class: i ? '' : 'first' }, text)));
  }

  const ends = (m) => {
    const from = m.from ? places.get(m.from) : clientPlace(m.client), to = m.to ? places.get(m.to) : clientPlace(m.client);
    return from && to ? [from, to] : null;
  };
  let seated = new Map();
  const clientPlace = (id) => seated.get(id);

  function shape(m) {
    const term = m.entryTerm || m.term;
    const g = s('g', { class: `message ${m.type}${m.no ? ' no' : ''} ${termClass(term)}`, 'data-message': m.index });
    const label = m.label.length > 18 ? m.label.slice(0, 17) + '…' : m.label;
    const w = Math.max(24, label.length * 6.6 + 14);
    let d; // its shape
    switch (m.type) {
      case 'vote': d = `M${-w / 2 - 8},0 L${-w / 2},-12 H${w / 2} L${w / 2 + 8},0 L${w / 2},12 H${-w / 2} Z`; break; // a ballot with two points
      case 'vote-reply': d = 'M0,-17 L22,0 L0,17 L-22,0 Z'; break;
      case 'heartbeat': d = 'M0,6 C-11,-2 -6,-9 0,-4 C6,-9 11,-2 0,6 Z'; break;
      case 'append': d = `M${-w / 2},-11 H${w / 2} V11 H${-w / 2} Z`; break;
      case 'append-reply': d = m.no ? 'M-11,0 a11,11 0 1,0 22,0 a11,11 0 1,0 -22,0' : 'M-8,0 a8,8 0 1,0 16,0 a8,8 0 1,0 -16,0'; break;
      case 'snapshot': d = `M${-w / 2 - 8},-13 H${w / 2 + 8} V13 H${-w / 2 - 8} Z M${-w / 2 - 4},-9 H${w / 2 + 4} V9 H${-w / 2 - 4} Z`; break;
      case 'read': d = `M${-w / 2},10 L${-w / 2 + 7},-10 H${w / 2 + 7} L${w / 2},10 Z`; break;
      default: d = `M${-w / 2 + 4},-11 H${w / 2 - 4} a11,11 0 0 1 0,22 H${-w / 2 + 4} a11,11 0 0 1 0,-22 Z`;
    }
    g.append(s('title', {}, m.title), s('circle', { r: 18, class: 'grip' }), s('path', { d, class: 'body' }));
    if (['append', 'snapshot'].includes(m.type)) g.append(s('path', { d, class: 'weave', fill: pattern('st', term) }));
    if (m.type === 'append-reply' && !m.no) g.append(s('path', { class: 'tick', d: 'M-4,0 l3,3 l5,-6' }));
    if (label) g.append(s('text', { y: 4 }, label));
    g.half = d.startsWith('M0,6') || (m.type === 'append-reply' && !m.no) ? 11 : m.type === 'vote-reply' || m.type === 'append-reply' ? 22 : w / 2 + 8;
    if (m.no) g.append(s('path', { class: 'strike', d: 'M-17,12 L17,-12' }));
    return button(g, title(m), (e, ev) => app.choose({ type: 'message', message: m }, e, ev));
  }

  return {
    reset(f) { film = f; seats = new Map(); shown = new Map(); layers.messages.replaceChildren(); layout(); },
    draw(view) {
      if (!film || !width) { if (film) layout(); if (!width) return; }
      const { index } = view;
      // Without motion, messages move only when something happens.
      const t = calm() ? film.moments[index].at : view.t;
      const key = JSON.stringify([app.selected?.type, app.selected?.id, app.selected?.from, app.selected?.message?.index]);
      const flights = film.flights(index, t);
      const busy = new Set(flights.filter((m) => m.client).map((m) => m.client));
      for (const c of view.waiting.keys()) busy.add(c);
      seated = new Map();
      const all = slots();
      for (const c of [...busy].sort((a, b) => b - a)) {
        const k = seat(c, busy);
        if (k >= 0) seated.set(c, all[k]);
      }
      if (index !== lastIndex || film !== lastFilm || key !== lastKey) {
        const focus = document.activeElement?.closest?.('[data-server]')?.getAttribute('data-server');
        drawLinks(film.cuts(index));
        const m = film.moments[index];
        const acting = new Set(film.events.slice(m.first, m.end).map((e) => e.node));
        moving = new Map();
        layers.servers.replaceChildren(...film.ids.map((id) => drawServer(id, film.stateAt(id, index), acting.has(id))));
        if (focus) layers.servers.querySelector(`[data-server="${focus}"]`)?.focus({ preventScroll: true });
        layers.clients.replaceChildren(...[...seated].map(([id, [x, y]]) => s('g', { class: 'client', transform: `translate(${x},${y})` },
          s('path', { class: 'person', d: 'M0,-20 a8,8 0 1 1 .1,0 Z M-14,6 c0,-14 6,-20 14,-20 s14,6 14,20 Z' }),
          s('text', { y: 22, ...edge(x, clientName(id)) }, clientName(id)), view.waiting.has(id) && s('text', { class: 'wish', y: 37, ...edge(x, `${view.waiting.get(id)} …`) }, `${view.waiting.get(id)} …`))));
        drawJoint(index);
        lastIndex = index; lastFilm = film; lastKey = key;
      }
      drawMoving(view, t);
      const now = new Map(), boxes = [];
      for (const m of flights) {
        const e = ends(m);
        if (!e) continue;
        const [[x1, y1], [x2, y2]] = e;
        const length = Math.hypot(x2 - x1, y2 - y1) || 1;
        // It starts and ends at the edges of the circles.
        const pad = Math.min(0.3, (READY + 12) / length);
        let p, fall = 0;
        if (m.lost && m.end <= index) {
          p = m.endAt > m.sentAt ? 0.86 : 0.12;
          fall = calm() ? 0 : (t - m.endAt) / 3e6;
        } else {
          const end = m.endAt === Infinity ? m.sentAt + 1.5e6 : m.endAt;
          p = Math.max(0, Math.min(m.endAt === Infinity ? 0.9 : 1, (t - m.sentAt) / Math.max(1, end - m.sentAt)));
        }
        p = pad + 0.06 + p * (0.94 - 2 * pad);
        // Two directions of one link keep to their own side.
        const off = m.client ? 0 : 7;
        const x = x1 + (x2 - x1) * p + (y2 - y1) / length * -off, y = y1 + (y2 - y1) * p + (x2 - x1) / length * off + fall * fall * 70;
        let g = shown.get(m.index);
        if (!g) layers.messages.append(g = shape(m));
        boxes.push({ g, m, x, y });
        const lost = m.lost && m.end <= index;
        g.classList.toggle('lost', !!lost);
        g.classList.toggle('doomed', film.doomed.get(`${m.from}>${m.to}#${m.number}`) <= film.moments[index].step + 1);
        g.classList.toggle('selected', app.selected?.message?.index === m.index && app.selected.type === 'message');
        if (lost && !g.querySelector('.dead')) {
          g.append(s('path', { class: 'dead', d: 'M-12,-12 L12,12 M12,-12 L-12,12' }), s('text', { class: 'why', y: 27 }, 'lost'));
          label(g, title(m));
        }
        g.style.opacity = lost ? Math.max(0, 1 - fall) : '';
        now.set(m.index, g);
      }
      // Where messages would cover each other, the less important ones are small and
      // without words.
      const rank = ({ m }) => (app.selected?.message?.index === m.index ? 9 : m.lost ? 6 : m.no ? 5 : { vote: 4, 'vote-reply': 4, snapshot: 4, append: 3, read: 3, heartbeat: 1, 'append-reply': 1 }[m.type] ?? 2);
      const kept = [];
      boxes.sort((a, b) => rank(b) - rank(a) || a.m.index - b.m.index);
      for (const b of boxes) {
        const covers = (half) => kept.some((k) => Math.abs(k.x - b.x) < k.half + half && Math.abs(k.y - b.y) < 24);
        const small = b.g.half > 11 && covers(b.g.half);
        b.half = small ? 8 : b.g.half;
        kept.push(b);
        b.g.setAttribute('transform', `translate(${b.x.toFixed(1)},${b.y.toFixed(1)})${small ? ' scale(.5)' : ''}`);
        b.g.classList.toggle('small', small);
      }
      for (const [k, g] of shown) if (!now.has(k)) g.remove();
      shown = now;
    },
  };
}
