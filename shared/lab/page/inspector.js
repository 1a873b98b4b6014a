// The inspector: the state of a server with the names and the words of Figure 2,
// or a message as it was sent.

import { h, name, time, termClass } from './dom.js';
import { pretty, command, client as clientName } from './words.js';

export function makeInspector(root, app) {
  const box = h('div', { class: 'inspector' });
  root.append(box);
  let film = null, last = '';

  const field = (label, value, about) => h('div', { class: 'field' }, h('dt', {}, label, about && h('small', {}, about)), h('dd', {}, value));

  function server(id, index) {
    const st = film.stateAt(id, index);
    const end = st.snapshot[0] + st.log.length;
    const lastTerm = st.log.length ? st.log[st.log.length - 1][0] : st.snapshot[1];
    const role = !st.up ? 'down' : [st.role || 'running', st.paused && 'paused'].filter(Boolean).join(', ');
    const members = st.config && st.config.now?.length ? st.config.now.map(name).join(' ') + (st.config.next?.length ? ` → ${st.config.next.map(name).join(' ')}` : '') + (st.config.learners?.length ? `; learners ${st.config.learners.map(name).join(' ')}` : '') : '';
    return [
      h('h3', {}, `${name(id)} · ${role}`, h('button', { type: 'button', class: 'go', onclick: (e) => app.menu.open({ type: 'server', id }, e.target, e) }, 'What can happen to it…')),
      film.roles ? h('dl', {},
        h('div', { class: 'group' }, 'Persistent state'),
        field('currentTerm', st.term, 'latest term the server has seen'),
        field('votedFor', st.vote ? name(st.vote) : 'none', 'candidate that received its vote in the current term'),
        field('log[]', st.log.length ? `${st.snapshot[0] + 1 < end ? `${st.snapshot[0] + 1} to ` : ''}${end}; the last is of term ${lastTerm}` : 'empty', 'log entries'),
        st.snapshot[0] ? field('snapshot', `up to index ${st.snapshot[0]}, term ${st.snapshot[1]}`, 'lastIncludedIndex and lastIncludedTerm') : null,
        h('div', { class: 'group' }, 'Volatile state'),
        field('commitIndex', st.commit, 'highest log entry known to be committed'),
        field('lastApplied', st.applied, 'highest log entry applied to the state machine'),
        st.votes.length ? field('votes', st.votes.map(name).join(' '), 'received in this election') : null,
        st.progress.length ? [h('div', { class: 'group' }, 'Volatile state on leaders'),
          field('nextIndex[]', st.progress.map((p) => `${name(p[0])}: ${p[1]}`).join('  '), 'next log entry to send to that server'),
          field('matchIndex[]', st.progress.map((p) => `${name(p[0])}: ${p[2]}`).join('  '), 'highest log entry known to be replicated on that server')] : null,
        members ? field('configuration', members, 'the servers that vote') : null) : h('p', { class: 'empty' }, 'The servers of this stage have no term, no role and no log.'),
      st.log.length ? h('details', {}, h('summary', {}, 'The entries'), h('ol', { class: 'entries', start: st.snapshot[0] + 1 }, st.log.slice(-200).map((e, k, all) =>
        h('li', { value: end - all.length + 1 + k }, h('span', { class: `chip ${termClass(e[0])}` }, e[0]), ' ', command(e[1]))))) : null,
    ];
  }

  function message(m) {
    const fate = m.lost ? `lost at ${time(m.endAt)}: ${m.lost}` : m.endAt === Infinity ? 'on its way when the film ends' : `arrives at ${time(m.endAt)}, after ${time(m.endAt - m.sentAt)}`;
    return [
      h('h3', {}, m.title),
      h('p', {}, `${m.from ? name(m.from) : clientName(m.client)} → ${m.to ? name(m.to) : clientName(m.client)}${m.number ? `, message ${m.number} on this link` : ''}`),
      h('p', {}, `Sent at ${time(m.sentAt)}; ${fate}.`),
      h('p', { class: 'jumps' },
        h('button', { type: 'button', onclick: () => app.seek(m.start) }, 'When it was sent'),
        m.end !== Infinity && h('button', { type: 'button', onclick: () => app.seek(m.end) }, m.lost ? 'When it was lost' : 'When it arrives')),
      h('pre', { tabindex: '0', 'aria-label': 'The line of JSON, indented' }, pretty(m.line || '')),
    ];
  }

  return {
    reset(f) { film = f; last = ''; },
    draw(view) {
      const sel = app.selected;
      const key = `${sel?.type} ${sel?.id} ${sel?.from} ${sel?.to} ${sel?.message?.index} ${sel?.type === 'message' ? '' : view.index}`;
      if (!film || key === last) return;
      last = key;
      const open = box.querySelector('details')?.open;
      if (sel?.type === 'server') box.replaceChildren(...server(sel.id, view.index).filter(Boolean));
      else if (sel?.type === 'message') box.replaceChildren(...message(sel.message));
      else if (sel?.type === 'link') box.replaceChildren(h('h3', {}, `The link between ${name(sel.from)} and ${name(sel.to)}`),
        h('p', {}, [[sel.from, sel.to], [sel.to, sel.from]].map(([a, b]) => `${name(a)} → ${name(b)}: ${film.cuts(view.index).has(`${a}>${b}`) ? 'cut' : 'passes messages'}. `)));
      else box.replaceChildren(h('p', { class: 'empty' }, 'Click a server, a link or a message to see its state.'));
      const d = box.querySelector('details');
      if (d && open) d.open = true;
    },
  };
}
