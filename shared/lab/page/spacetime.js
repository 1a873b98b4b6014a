// The space-time diagram: one column per server, time downwards, an arrow for every
// message. Every moment has a line of its own, so quiet time takes no space. A word is
// left out where it would cover another one; a click on its arrow says all.

import { s, name, time, termClass, button } from './dom.js';

const LINE = 17, TOP = 34, LEFT = 78;

export function makeSpacetime(root, app) {
  const svg = s('svg', { class: 'spacetime', role: 'group', 'aria-label': 'Space-time diagram: time runs downwards' });
  root.append(svg);
  let film = null, lastIndex = -2, lastKey = '';
  new ResizeObserver(() => { lastIndex = -2; if (film && !root.hidden) app.redraw(); }).observe(root);

  function draw(view) {
    const width = root.clientWidth, height = root.clientHeight;
    if (!film || !width) return;
    const key = `${width} ${height} ${app.selected?.message?.index}`;
    if (view.index === lastIndex && key === lastKey) return;
    lastIndex = view.index; lastKey = key;
    svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    const lines = Math.max(4, Math.floor((height - TOP - 12) / LINE));
    const first = Math.max(0, Math.min(view.index - Math.floor(lines * 0.7), film.moments.length - lines));
    const last = Math.min(film.moments.length - 1, first + lines - 1);
    const x = (id) => LEFT + (width - LEFT - 40) * (film.ids.indexOf(id) + 0.5) / film.ids.length;
    const y = (m) => TOP + 8 + (Math.min(m, last + 3) - first) * LINE;
    const parts = [s('defs', {}, s('marker', { id: 'tip', viewBox: '0 0 8 8', refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: 'auto-start-reverse' }, s('path', { d: 'M0,0 L8,4 L0,8 z', class: 'tip' })))];
    // lifelines, in the color of the term
    for (const id of film.ids) {
      for (let m = first; m <= last; m++) {
        const st = film.stateAt(id, m);
        parts.push(s('line', { class: `life ${st.up ? st.role : 'down'} ${termClass(st.up ? st.term : 0)}${m > view.index ? ' later' : ''}`, x1: x(id), x2: x(id), y1: y(m) - LINE / 2, y2: y(m) + LINE / 2 }));
      }
    }
    let before = -1, said = '', saidAt = -9;
    for (let m = first; m <= last; m++) {
      const at = film.moments[m].at, text = time(at);
      const gap = before >= 0 && at - before > 5e6;
      if (gap) parts.push(s('path', { class: 'gap', d: `M${LEFT - 6},${y(m) - LINE / 2} H${width - 10}` }));
      if (text !== said && (gap || m - saidAt >= 4)) {
        parts.push(s('text', { class: `when${m > view.index ? ' later' : ''}`, x: LEFT - 12, y: y(m) + 4 }, text));
        said = text; saidAt = m;
      }
      before = at;
    }
    parts.push(s('line', { class: 'now', x1: LEFT - 8, x2: width - 8, y1: y(view.index), y2: y(view.index) }));

    // What stands in a place already: pairs of corners.
    const taken = [];
    const take = (x, y, w, h) => {
      const box = [x - w / 2, y - h, x + w / 2, y];
      if (box[0] < LEFT - 8 || box[2] > width || box[1] < TOP - 4) return false;
      if (taken.some((t) => box[0] < t[2] && t[0] < box[2] && box[1] < t[3] && t[1] < box[3])) return false;
      taken.push(box);
      return true;
    };
    const turns = [];
    for (let m = first; m <= last; m++) for (let i = film.moments[m].first; i < film.moments[m].end; i++) {
      const e = film.events[i], later = m > view.index ? ' later' : '';
      if (e.kind === 'role') turns.push(s('g', { class: `turn ${e.role} ${termClass(e.term)}${later}`, transform: `translate(${x(e.node)},${y(m)})` }, s('circle', { r: 8 }), s('text', { y: 4 }, e.role === 'leader' ? '♛' : e.role === 'candidate' ? '?' : e.term)));
      else if (e.kind === 'crash' || e.kind === 'stop') turns.push(s('path', { class: `dead${later}`, d: `M${x(e.node) - 7},${y(m) - 7} l14,14 m0,-14 l-14,14` }));
      else continue;
      take(x(e.node), y(m) + 9, 18, 18);
    }
    const seen = new Set(), arrows = [];
    for (let b = first >> 6; b <= last >> 6; b++) for (const msg of film.blocks[b]) {
      if (seen.has(msg.index) || !msg.from || !msg.to || msg.start > last || msg.end < first) continue;
      seen.add(msg.index);
      let x1 = x(msg.from), y1 = y(msg.start), x2 = x(msg.to), y2 = y(msg.end);
      if (msg.end === Infinity) y2 = y(last + 2);
      if (msg.lost) {
        const p = msg.end === msg.start ? 0.4 : 0.85;
        x2 = x1 + (x2 - x1) * p; y2 = msg.end === msg.start ? y1 + 8 : y1 + (y2 - y1) * p;
        take(x2, y2 + 6, 12, 12);
      }
      arrows.push({ msg, x1, y1, x2, y2 });
    }
    for (const { msg, x1, y1, x2, y2 } of arrows) {
      const word = msg.label || (msg.type === 'append-reply' ? 'ok' : msg.type === 'heartbeat' ? '♥' : ''), w = 7 * word.length + 2;
      const along = (p) => [x1 + (x2 - x1) * p, y1 + (y2 - y1) * p - 4];
      const beside = [x2 + Math.sign(x2 - x1) * (9 + w / 2), y2 + 4];
      const places = [...(msg.lost ? [beside, [x2, y2 - 8], [x2, y2 + 19]] : []), ...[0.55, 0.42, 0.7, 0.3, 0.82].map(along)];
      const place = word && places.find(([px, py]) => take(px, py + 1, w, 12));
      const later = msg.start > view.index ? ' later' : '';
      const selected = app.selected?.message?.index === msg.index ? ' selected' : '';
      parts.push(button(s('g', { class: `arrow ${msg.type} ${termClass(msg.term)}${msg.no ? ' no' : ''}${later}${selected}` },
        s('line', { class: 'grip', x1, y1, x2, y2 }), s('line', { class: 'wire', x1, y1, x2, y2, 'marker-end': msg.lost ? null : 'url(#tip)' }),
        msg.lost && s('path', { class: 'dead', d: `M${x2 - 5},${y2 - 5} l10,10 m0,-10 l-10,10` }),
        place && s('text', { x: place[0], y: place[1] }, word)),
      `${msg.title} from ${name(msg.from)} to ${name(msg.to)}${msg.lost ? ', lost' : ''}`, (e, ev) => app.choose({ type: 'message', message: msg }, e, ev)));
    }
    parts.push(...turns);
    parts.push(s('rect', { class: 'head', x: 0, y: 0, width, height: TOP - 6 }));
    for (const id of film.ids) parts.push(s('text', { class: 'top', x: x(id), y: 18 }, name(id)));
    svg.replaceChildren(...parts);
  }
  return { reset(f) { film = f; lastIndex = -2; }, draw };
}
