// The logs, one row per server: solid boxes are committed, as far as the server
// knows, outlined boxes are not, and half boxes are not even on its disk. Where the
// servers keep no log, the rows show their stores.

import { h, s, name, termClass, pattern, patterns } from './dom.js';
import { command } from './words.js';

const LEFT = 66, ROW = 36, BOX = 26, HEAD = 20, MARKS = 28;

export function makeLogs(root, app) {
  const svg = s('svg', { class: 'logs', role: 'img' });
  root.append(svg);
  let film = null, lastIndex = -2, lastWidth = 0;
  new ResizeObserver(() => { lastIndex = -2; if (film) app.redraw(); }).observe(root);

  // Boxes are as wide as the longest log of the film allows.
  const column = (width) => (width < 560 ? 66 : Math.max(74, Math.min(96, Math.floor((width - LEFT - 14) / (film.longest + 1)))));

  function box(x, y, w, entry, kind, title) {
    const [term, text] = entry;
    const digits = 7 * (String(term).length - 1);
    const words = command(text), most = Math.floor((w - 21 - digits) / 7.3);
    const g = s('g', { class: `entry ${kind} ${termClass(term)}`, transform: `translate(${x},${y})` },
      s('title', {}, title),
      s('rect', { width: w - 4, height: kind === 'memory' ? BOX / 2 + 2 : BOX, rx: 4, class: 'body' }),
      kind === 'committed' && s('rect', { width: w - 4, height: BOX, rx: 4, class: 'weave', fill: pattern('lg', term) }),
      s('text', { class: 'of', x: 5, y: kind === 'memory' ? 11 : 17 }, term),
      s('text', { class: 'what', x: 16 + digits, y: kind === 'memory' ? 11 : 17 }, words.length > most ? words.slice(0, Math.max(1, most - 2)) + '…' : words));
    if (kind === 'removed') g.append(s('path', { class: 'strike', d: `M-2,${BOX / 2} H${w - 2}` }));
    return g;
  }

  // drawStores shows what each server holds, and marks what others do not hold.
  function drawStores(width, view) {
    const states = film.ids.map((id) => [id, film.stateAt(id, view.index)]);
    const keys = [...new Set(states.flatMap(([, st]) => Object.keys(st.store)))].sort();
    const parts = [];
    const w = Math.max(74, Math.min(150, (width - LEFT - 14) / Math.max(1, keys.length)));
    const columns = Math.max(1, Math.floor((width - LEFT - 14) / w)), shown = keys.slice(-columns);
    const usual = new Map(shown.map((k) => {
      const count = new Map();
      for (const [, st] of states) if (st.up) count.set(st.store[k], (count.get(st.store[k]) || 0) + 1);
      return [k, [...count].sort((a, b) => b[1] - a[1])[0]?.[0]];
    }));
    let y = 4;
    for (const [id, st] of states) {
      const g = s('g', { class: `row${st.up ? '' : ' off'}` }, s('text', { class: 'who', x: 4, y: y + 17 }, name(id), !st.up && s('tspan', { class: 'crown' }, ' ✕')),
        s('line', { class: 'ground', x1: LEFT, x2: width - 6, y1: y + BOX + 5, y2: y + BOX + 5 }));
      shown.forEach((k, i) => {
        const has = k in st.store, odd = st.up && st.store[k] !== usual.get(k);
        if (!has && !odd) return;
        const text = has ? `${k}=${st.store[k]}` : `no ${k}`, most = Math.floor((w - 16) / 7.5);
        g.append(s('g', { class: `held${odd ? ' odd' : ''}`, transform: `translate(${LEFT + i * w},${y})` }, s('title', {}, text), s('rect', { width: w - 4, height: BOX, rx: 4, class: 'body' }),
          s('text', { x: 8, y: 17 }, text.length > most ? text.slice(0, Math.max(1, most - 1)) + '…' : text)));
      });
      parts.push(g);
      y += ROW;
    }
    svg.setAttribute('viewBox', `0 0 ${width} ${y}`);
    svg.setAttribute('width', width);
    svg.setAttribute('height', y);
    svg.setAttribute('aria-label', 'Stores. ' + states.map(([id, st]) => `${name(id)}: ${Object.entries(st.store).map(([k, v]) => `${k}=${v}`).join(', ') || 'empty'}`).join('. '));
    svg.replaceChildren(...parts);
  }

  function draw(view) {
    const width = root.clientWidth;
    if (!film || !width || (view.index === lastIndex && width === lastWidth)) return;
    lastIndex = view.index; lastWidth = width;
    if (!film.roles) {
      drawStores(width, view);
      return;
    }
    const states = film.ids.map((id) => [id, film.stateAt(id, view.index)]);
    const w = column(width), fit = (room) => Math.max(1, Math.floor((width - LEFT - 14 - room) / w));
    const last = Math.max(1, ...states.map(([, st]) => st.snapshot[0] + st.log.length));
    const next = last + 1;
    // What does not fit is one box on the left, if it is a snapshot.
    const most = Math.max(...states.map(([, st]) => st.snapshot[0]));
    const aside = most > 0 && most < next - fit(0) + 1 ? 128 : 0;
    const columns = fit(aside), first = Math.max(1, next - columns + 1);
    const x = (i) => LEFT + aside + (i - first) * w;
    const parts = [patterns('lg')];
    const step = film.moments[view.index].step;
    for (let i = first; i <= Math.min(next, first + columns - 1); i++) parts.push(s('text', { class: 'index', x: x(i) + w / 2 - 2, y: 13 }, i));
    if (first > 1) parts.push(s('text', { class: 'index', x: LEFT - 12 + aside, y: 13 }, '…'));
    let y = HEAD;
    for (const [id, st] of states) {
      const leads = st.up && st.role === 'leader';
      const g = s('g', { class: `row${st.up ? '' : ' off'}` });
      g.append(s('text', { class: 'who', x: 4, y: y + 17 }, name(id), leads && s('tspan', { class: 'crown' }, ' ♛'), !st.up && s('tspan', { class: 'crown' }, ' ✕')),
        s('line', { class: 'ground', x1: LEFT, x2: width - 6, y1: y + BOX + 5, y2: y + BOX + 5 }));
      const [snap, snapTerm] = st.snapshot;
      if (snap >= first) {
        g.append(s('g', { class: `entry snapshot ${termClass(snapTerm)}`, transform: `translate(${x(first)},${y})` },
          s('rect', { width: (snap - first + 1) * w - 4, height: BOX, rx: 4, class: 'body' }),
          s('text', { x: 8, y: 17, class: 'what' }, snap - first > 0 ? `snapshot up to ${snap}` : `≤${snap}`)));
      }
      if (snap && snap < first && aside) {
        g.append(s('g', { class: `entry snapshot ${termClass(snapTerm)}`, transform: `translate(${LEFT},${y})` }, s('title', {}, `The snapshot holds everything up to entry ${snap}, of term ${snapTerm}`),
          s('rect', { width: aside - 8, height: BOX, rx: 4, class: 'body' }), s('text', { x: 8, y: 17, class: 'what' }, `snapshot to ${snap}`)));
      }
      const end = snap + st.log.length;
      if (end > snap && end < first && end) g.append(s('text', { class: 'lane', x: LEFT + (snap ? aside : 0), y: y + 17 }, `◂ ends at ${end}`));
      for (let i = Math.max(first, snap + 1); i <= snap + st.log.length; i++) {
        const entry = st.log[i - snap - 1], committed = i <= st.commit, memory = st.unsynced[0] && i >= st.unsynced[0];
        g.append(box(x(i), y, w, entry, memory ? 'memory' : committed ? 'committed' : 'open',
          `entry ${i} of term ${entry[0]}: ${command(entry[1])}; ${memory ? 'only in memory, not yet on disk' : committed ? 'committed' : 'not committed, as far as ' + name(id) + ' knows'}`));
      }
      // What has just been removed stays for a moment, struck out, below its place.
      const r = st.removed;
      if (r && view.t - film.moments[film.momentOfStep(r.step)].at < 30e6 && step >= r.step) {
        r.entries.forEach((entry, k) => { if (r.from + k >= first) g.append(box(x(r.from + k), y + BOX + 9, w, entry, 'removed', `entry ${r.from + k} of term ${entry[0]} was removed`)); });
        g.append(s('text', { class: 'gone', x: x(Math.max(first, r.from) + r.entries.length) + 4, y: y + BOX + 26 }, 'removed'));
      }
      const shows = g.querySelector('.gone');
      if (st.commit >= first && st.commit > snap) g.append(s('path', { class: 'commit', d: `M${x(st.commit + 1) - 3},${y - 3} V${y + BOX + 4}` }));
      y += ROW + (shows ? BOX + 6 : 0);
      if (leads && st.progress.length) {
        const at = (k) => {
          const by = new Map();
          for (const p of st.progress) by.set(p[k], [...(by.get(p[k]) || []), name(p[0])]);
          return by;
        };
        const lane = (k, label, title, dy) => {
          g.append(s('text', { class: 'lane', x: 4, y: y + dy }, label, s('title', {}, title)));
          const early = [], marks = [], wide = (text) => 6.2 * text.length;
          for (const [i, who] of [...at(k)].sort((a, b) => a[0] - b[0])) {
            const list = who.length === 1 ? who[0] : 'n' + who.map((n) => n.slice(1)).join(' '), all = (k === 1 ? '▸' : '✓') + list;
            if (i >= first) marks.push([x(i) + w / 2 - 2 - wide(all) / 2, all]);
            else early.push(i ? `${all} (${i})` : `none: ${list}`);
          }
          // What is left of the boxes stands before them, and no mark covers another one.
          const text = early.join(' · ');
          if (text) marks.unshift([Math.max(46, Math.min(LEFT + 4, (marks[0]?.[0] ?? Infinity) - wide(text) - 8)), text]);
          let free = 0;
          for (const [from, text] of marks) {
            const px = Math.max(from, free);
            g.append(s('text', { class: 'lane at', x: px, y: y + dy }, text));
            free = px + wide(text) + 8;
          }
        };
        lane(2, 'match', 'matchIndex: the last entry that the follower is known to hold', 5);
        lane(1, 'next', 'nextIndex: the entry that the leader sends next', 18);
        y += MARKS;
      }
      parts.push(g);
    }
    const height = y + 2;
    svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    svg.setAttribute('width', width);
    svg.setAttribute('height', height);
    svg.setAttribute('aria-label', 'Logs. ' + states.map(([id, st]) => `${name(id)}: ${st.snapshot[0] + st.log.length} entries, ${st.commit} committed`).join('. '));
    svg.replaceChildren(...parts);
  }

  return {
    reset(f) {
      film = f;
      lastIndex = -2;
      const title = root.parentElement.querySelector('h2'); // two films are compared side by side
      if (title) title.replaceChildren(...(film.roles ? ['Logs ', h('small', {}, 'solid = committed · outlined = not committed · half = not yet on disk, as far as the server knows')] : ['Stores ', h('small', {}, 'these servers keep no log, only a store · red = differs from most of the others')]));
    },
    draw,
  };
}
