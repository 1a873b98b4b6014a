// The feed: what was decided, by which rule, and why, up to now. A click on a
// sentence goes to its moment; a second one shows the code that decided.

import { h, time, termClass } from './dom.js';
import { client as clientName } from './words.js';

const MOST = 80;
const KINDS = { note: 'story', verdict: 'verdict', crash: 'down', stop: 'down', start: 'up', pause: 'paused', resume: 'up', cut: 'network', heal: 'network', trouble: 'trouble', return: 'answer' };

export function makeWhy(root, app) {
  const list = h('ol');
  const box = h('div', { class: 'feed', role: 'log', 'aria-label': 'Decisions so far, and why', tabindex: '0' }, list);
  root.append(box);
  let film = null, from = 0, to = 0;

  function line(f) {
    const head = f.kind === 'decide' ? f.code.replaceAll('-', ' ') : KINDS[f.kind] || f.kind;
    return h('li', { class: f.kind + (f.broken ? ' broken' : '') },
      h('button', { type: 'button', class: 'jump', onclick: () => (f.kind === 'decide' && f.moment === app.index && !app.playing ? app.source.show(f) : app.seek(f.moment)) },
        h('span', { class: 'head' }, h('span', { class: `chip ${termClass(f.term)}` }, f.node ? 'n' + f.node : f.client ? clientName(f.client) : '•'), h('b', {}, head),
          f.section && h('span', { class: 'section' }, f.section), h('time', {}, time(f.at))),
        h('span', { class: 'text' }, f.text)),
      f.kind === 'decide' && h('button', { type: 'button', class: 'code', title: 'The code that decided this', 'aria-label': `The code of: ${f.text}`, onclick: () => app.source.show(f) }, '{ }'));
  }

  return {
    reset(f) { film = f; from = to = 0; list.replaceChildren(); },
    draw(view) {
      if (!film) return;
      const n = film.fed(view.index);
      box.setAttribute('aria-live', app.playing && app.speed > 0.02 ? 'off' : 'polite');
      if (n !== to) {
        if (n < from || n - to > MOST || n < to - MOST) {
          from = Math.max(0, n - MOST);
          list.replaceChildren(...film.feed.slice(from, n).map(line));
        } else {
          for (; to < n; to++) list.append(line(film.feed[to]));
          for (; to > n; to--) list.lastChild?.remove();
          for (; to - from > 2 * MOST; from++) list.firstChild.remove();
        }
        to = n;
        if (from > to - 20 && from > 0) {
          const early = Math.max(0, to - MOST);
          list.prepend(...film.feed.slice(early, from).map(line));
          from = early;
        }
        box.scrollTop = box.scrollHeight;
      }
      let k = list.children.length - 1;
      for (const li of list.querySelectorAll('.now')) li.classList.remove('now');
      for (; k >= 0 && film.feed[from + k].moment === view.index; k--) list.children[k].classList.add('now');
    },
  };
}
