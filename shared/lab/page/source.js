// The code behind a decision: the function of this stage that made it, with the
// conditions that lead to the line.

import { h, termClass } from './dom.js';
import { code } from './engine.js';

export function makeSource(app) {
  const dialog = h('dialog', { class: 'source', 'aria-labelledby': 'source-title' });
  document.body.append(dialog);
  const codes = new Map(); // of the stages and edits that were asked for
  function get() {
    const { stage, edits = [] } = app.script, key = [stage, ...edits].join(' ');
    if (!codes.has(key)) codes.set(key, code(app.script).catch((err) => { codes.delete(key); throw err; }));
    return codes.get(key);
  }

  function listing(x, p) {
    const guard = new Set(p.guard), names = new Set(p.lines);
    const lines = x.files[p.file].split('\n').slice(p.from - 1, p.to);
    return h('section', {},
      h('h3', {}, h('code', {}, `${p.function}`), h('small', {}, `${p.file}:${p.from}`)),
      h('ol', { class: 'listing', tabindex: '0', 'aria-label': `The function ${p.function}` }, lines.map((text, i) => {
        const n = p.from + i, kind = names.has(n) ? 'decides' : guard.has(n) ? 'guard' : /^\s*\/\//.test(text) ? 'comment' : '';
        return h('li', { class: kind }, h('span', { class: 'n', 'aria-hidden': 'true' }, n), h('span', { class: 'tag' }, kind === 'guard' ? 'checked' : kind === 'decides' ? 'decided' : ''),
          h('code', {}, text.replaceAll('\t', '    ') || ' '));
      })));
  }

  return {
    // show shows the code of a decision, which is a line of the feed.
    async show(f) {
      app.pause();
      let body;
      try {
        const x = await get(), places = x.rules[f.code] || [];
        body = places.length ? places.map((p) => listing(x, p)) : [h('p', {}, `No function of this stage names the rule “${f.code}”.`)];
      } catch (err) { body = [h('p', {}, `The code cannot be shown: ${err.message}`)]; }
      dialog.replaceChildren(
        h('form', { method: 'dialog' }, h('button', { class: 'close', 'aria-label': 'Close' }, '×')),
        h('h2', { id: 'source-title' }, 'The code that decided this'),
        h('p', { class: 'decision' }, h('span', { class: `chip ${termClass(f.term)}` }, 'n' + f.node), ' ', f.text, ' ', h('span', { class: 'section' }, f.section)), ...body);
      if (!dialog.open) dialog.showModal();
      dialog.querySelector('.decides')?.scrollIntoView({ block: 'center' });
    },
    get open() { return dialog.open; },
  };
}
