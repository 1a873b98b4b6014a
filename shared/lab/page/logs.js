// The logs, one row per server: solid boxes are committed, as far as the server
// knows, outlined boxes are not.

import { s, name, termClass, pattern, patterns } from './dom.js';
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
    const words = command(text), most = Math.floor((w - 21 - digits) / 7.5);
    const g = s('g', { class: `entry ${kind} ${termClass(term)}`, transform: `translate(${x},${y})` },
      s('title', {}, title),
      s('rect', { width: w - 4, height: BOX, rx: 4, class: 'body' }),
      kind === 'committed' && s('rect', { width: w - 4, height: BOX, rx: 4, class: 'weave', fill: pattern('lg', term) }),
      s('text', { class: 'of', x: 5, y: 17 }, term),
      s('text', { class: 'what', x: 16 + digits, y: 17 }, words.length > most ? words.slice(0, Math.max(1, most - 2)) + '…' : words));
    if (kind === 'removed') g.append(s('path', { class: 'strike', d: `M-2,${BOX / 2} H${w - 2}` }));
    return g;
  }

  function draw(view) {
    const width = root.clientWidth;
    if (!film || !width || (view.index === lastIndex && width === lastWidth)) return;
    lastIndex = view.index; lastWidth = width;
    if (!film.roles) {
      svg.setAttribute('viewBox', `0 0 ${width} 40`);
      svg.setAttribute('width', width);
      svg.setAttribute('height', 40);
      svg.replaceChildren(s('text', { class: 'lane', x: 12, y: 22 }, 'The servers of this stage have no log.'));
      return;
    }
    const states = film.ids.map((id) => [id, film.stateAt(id, view.index)]);
    const w = column(width), columns = Math.floor((width - LEFT - 14) / w);
    const last = Math.max(1, ...states.map(([, st]) => st.snapshot[0] + st.log.length));
    const next = last + 1;
    const first = Math.max(1, next - columns + 1);
    const x = (i) => LEFT + (i - first) * w;
    const parts = [patterns('lg')];
    const step = film.moments[view.index].step;
    for (let i = first; i <= Math.min(next, first + columns - 1); i++) parts.push(s('text', { class: 'index', x: x(i) + w / 2 - 2, y: 13 }, i));
    if (first > 1) parts.push(s('text', { class: 'index', x: LEFT - 12, y: 13 }, '…'));
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
      const end = snap + st.log.length;
      if (end < first && end) g.append(s('text', { class: 'lane', x: LEFT, y: y + 17 }, `◂ ends at ${end}`));
      for (let i = Math.max(first, snap + 1); i <= snap + st.log.length; i++) {
        const entry = st.log[i - snap - 1], committed = i <= st.commit;
        g.append(box(x(i), y, w, entry, committed ? 'committed' : 'open', `entry ${i} of term ${entry[0]}: ${command(entry[1])}; ${committed ? 'committed' : 'not committed, as far as ' + name(id) + ' knows'}`));
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
          for (const [i, who] of at(k)) {
            const px = i < first ? LEFT - 14 : x(i) + w / 2 - 2;
            const all = who.length === 1 ? who[0] : 'n' + who.map((n) => n.slice(1)).join(' ');
            g.append(s('text', { class: `lane at${i < first ? ' early' : ''}`, x: px, y: y + dy }, (k === 1 ? '▸' : '✓') + all + (i < first && i ? ` (${i})` : '')));
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

  return { reset(f) { film = f; lastIndex = -2; }, draw };
}
