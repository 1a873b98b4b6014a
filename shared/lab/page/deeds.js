// What somebody does: the menus of servers, links and messages, and the list of
// what has been done.

import { h, name, time } from './dom.js';
import { deed as describe } from './words.js';

const MS = 1e6;

export function makeMenu(app) {
  const menu = h('div', { class: 'menu', role: 'dialog', hidden: true });
  document.body.append(menu);
  let opener = null;

  function close(back) {
    if (menu.hidden) return;
    menu.hidden = true;
    if (back) (opener?.isConnected ? opener : document.querySelector(opener?.dataset?.server ? `[data-server="${opener.dataset.server}"]` : '.key.play'))?.focus({ preventScroll: true });
  }
  document.addEventListener('pointerdown', (e) => { if (!menu.contains(e.target)) close(false); });
  menu.addEventListener('keydown', (e) => {
    e.stopPropagation();
    if (e.key === 'Escape') { close(true); return; }
    if (e.key !== 'ArrowDown' && e.key !== 'ArrowUp') return;
    if (e.target.tagName === 'SELECT') return;
    e.preventDefault();
    const items = [...menu.querySelectorAll('button:not(:disabled),input,select')];
    items[(items.indexOf(document.activeElement) + (e.key === 'ArrowDown' ? 1 : -1) + items.length) % items.length]?.focus();
  });

  function open(title, items, from, ev) {
    app.pause();
    opener = from;
    menu.replaceChildren(h('div', { class: 'menu-title' }, title, h('button', { type: 'button', class: 'close', 'aria-label': 'Close', onclick: () => close(true) }, '×')), ...items.filter(Boolean));
    menu.setAttribute('aria-label', title);
    menu.hidden = false;
    const r = from.getBoundingClientRect(), box = menu.getBoundingClientRect();
    const px = ev?.clientX || r.right, py = ev?.clientY || r.top;
    menu.style.left = Math.max(6, Math.min(px + 10, innerWidth - box.width - 6)) + 'px';
    menu.style.top = Math.max(6, Math.min(py - 10, innerHeight - box.height - 6)) + 'px';
    menu.querySelector('button:not(.close):not(:disabled),input')?.focus({ preventScroll: true });
  }

  const item = (label, deed, hint) => app.stage.deeds.includes(deed.do) && h('button', { type: 'button', class: 'item', title: hint, onclick: () => { close(true); app.act(deed); } }, label);

  function request(server) {
    const ops = ['put', 'append', 'get', 'delete'].filter((o) => app.stage.ops.includes(o));
    if (!ops.length || !app.stage.deeds.includes('request')) return null;
    const op = h('select', { 'aria-label': 'Operation' }, ops.map((o) => h('option', {}, o)));
    const key = h('input', { value: 'x', size: 4, 'aria-label': 'Key', required: true });
    const value = h('input', { value: String(1 + (app.script.deeds || []).filter((d) => d.do === 'request').length), size: 5, 'aria-label': 'Value' });
    const only = h('select', { 'aria-label': 'Through' }, server && h('option', { value: server }, `through ${name(server)} only`), h('option', { value: 0 }, 'the client finds the leader'),
      !server && app.film.ids.map((id) => h('option', { value: id }, `through ${name(id)} only`)));
    op.addEventListener('change', () => { value.hidden = op.value === 'get' || op.value === 'delete'; });
    return h('form', { class: 'request', onsubmit: (e) => {
      e.preventDefault();
      const q = { op: op.value, key: key.value };
      if (!value.hidden) q.value = value.value;
      const d = { do: 'request', client: 1, request: JSON.stringify(q) };
      if (Number(only.value)) d.server = Number(only.value);
      close(true);
      app.act(d);
    } }, h('b', {}, 'Send a request'), h('div', {}, op, key, value), h('div', {}, only, h('button', { type: 'submit', class: 'go' }, 'Send')));
  }

  const entry = (label, about, act) => h('button', { type: 'button', class: 'item', onclick: () => { close(true); act(); } }, h('b', {}, label), about && h('small', {}, about));

  return {
    close,
    // list shows entries of [label, what it does, act].
    list(title, entries, from, ev) { open(title, entries.map((e) => entry(...e)), from, ev); },
    open(what, from, ev) {
      const view = app.view();
      if (what.type === 'server') {
        const id = what.id, st = app.film.stateAt(id, view.index);
        const links = h('div', { class: 'links' }, 'Link to ', app.film.ids.filter((x) => x !== id).map((x) => h('button', { type: 'button', onclick: () => this.open({ type: 'link', from: Math.min(id, x), to: Math.max(id, x) }, from, ev) }, name(x))));
        open(`${name(id)}: what happens now?`, st.up ? [
          request(id),
          item('Kill the process', { do: 'kill', server: id }, 'What it has written stays on its disk'),
          item('Cut the power', { do: 'power-cut', server: id }, 'What is not synced may be lost'),
          item('Cut the power in its next write', { do: 'power-cut-in-write', server: id }, 'After it has sent, and before its fsync'),
          st.paused ? item('Resume', { do: 'resume', server: id }) : item('Pause the process', { do: 'pause', server: id }),
          st.role !== 'leader' && !app.stage.appointed && item('Expire its election timeout', { do: 'expire', server: id }),
          item('Fill its disk', { do: 'full-disk', server: id }), item('Let its next fsync fail', { do: 'failed-fsync', server: id }),
          app.film.ids.length > 2 && item('Cut it off from all others', { do: 'partition', groups: [[id], app.film.ids.filter((x) => x !== id)] }), links,
        ] : [item('Restart', { do: 'restart', server: id }), item('Cut it off from all others', { do: 'partition', groups: [[id], app.film.ids.filter((x) => x !== id)] }), links], from, ev);
      } else if (what.type === 'link') {
        const { from: a, to: b } = what, cuts = app.film.cuts(view.index);
        const way = (x, y) => (cuts.has(`${x}>${y}`) ? item(`Heal ${name(x)} → ${name(y)}`, { do: 'heal', from: x, to: y }) : item(`Cut ${name(x)} → ${name(y)}`, { do: 'cut', from: x, to: y }));
        const both = (kind, label) => h('button', { type: 'button', class: 'item', onclick: () => { close(true); app.act({ do: kind, from: a, to: b }, { do: kind, from: b, to: a }); } }, label);
        open(`The link between ${name(a)} and ${name(b)}`, [
          cuts.has(`${a}>${b}`) && cuts.has(`${b}>${a}`) ? both('heal', 'Heal both directions') : both('cut', 'Cut both directions'), way(a, b), way(b, a),
        ], from, ev);
      } else if (what.type === 'message') {
        const m = what.message;
        const on = { from: m.from, to: m.to, number: m.number };
        const transit = m.number && m.start <= view.index && view.index < m.end;
        open(`${m.title}${m.from ? ', ' + name(m.from) : ''}${m.to ? ' → ' + name(m.to) : ''}`, transit ? [
          item('Lose this message', { do: 'lose', ...on }), item('Delay it by 10 ms', { do: 'delay', ...on, for: 10 * MS }), item('Delay it by 300 ms', { do: 'delay', ...on, for: 300 * MS }),
          item('Deliver it twice', { do: 'repeat', ...on, for: 5 * MS }),
        ] : [h('p', {}, m.number ? 'This message is not on its way now.' : 'Requests and answers of clients cannot be changed here.')], from, ev);
      } else if (what.type === 'tours') {
        const own = app.tours.filter((x) => x.stage === app.stage.stage);
        open('Guided tours', own.map((x) => entry(x.title, `${x.about} ${x.stops} steps.`, () => app.tour.begin(x.name))), from, ev);
      } else if (what.type === 'cluster') {
        const sides = app.film.ids.map((id) => h('label', {}, h('input', { type: 'checkbox', value: id }), name(id)));
        open('The whole cluster', [
          request(0),
          app.stage.deeds.includes('partition') && h('form', { class: 'request', onsubmit: (e) => {
            e.preventDefault();
            const chosen = sides.map((l) => l.firstChild).filter((c) => c.checked).map((c) => Number(c.value));
            const rest = app.film.ids.filter((id) => !chosen.includes(id));
            close(true);
            app.act({ do: 'partition', groups: [chosen, rest].filter((g) => g.length) });
          } }, h('b', {}, 'Partition: these on one side'), h('div', { class: 'sides' }, sides, h('button', { type: 'submit', class: 'go' }, 'Part'))),
          app.film.cuts(view.index).size > 0 && item('Heal the whole network', { do: 'heal-all' }),
        ], from, ev);
      }
    },
  };
}

export function makeDeeds(root, app) {
  const list = h('ol', { class: 'deeds', 'aria-label': 'What you did' });
  root.append(list);
  return {
    reset(film) {
      const deeds = film.script.deeds || [];
      list.replaceChildren(...deeds.map((d, i) => {
        const o = film.outcomes[i] || {};
        return h('li', { class: o.applied ? '' : 'failed' },
          h('button', { type: 'button', class: 'jump', onclick: () => app.seek(film.momentOfStep(d.at)) },
            h('span', { class: 'head' }, h('time', {}, `before step ${d.at}${d.time ? ', ' + time(d.time) : ''}`)),
            h('span', { class: 'text' }, describe(d)), !o.applied && h('span', { class: 'not' }, `did not apply: ${o.why || 'the film ends before it'}`)),
          h('button', { type: 'button', class: 'remove', 'aria-label': `Undo: ${describe(d)}`, title: 'Undo', onclick: () => app.undo(i) }, '×'));
      }));
      if (!deeds.length) list.append(h('li', { class: 'empty' }, 'Nothing yet. Click a server, a link or a message, and decide what happens to it. The film is then played again from this moment on.'));
    },
    draw() {},
  };
}
