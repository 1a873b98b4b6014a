// The inspector: the state of a server with the names and the words of Figure 2,
// or a message as it was sent.

import { h, name, time, termClass } from './dom.js';
import { pretty, command, client as clientName } from './words.js';
import { asked } from './engine.js';

export function makeInspector(root, app) {
  const box = h('div', { class: 'inspector' });
  root.append(box);
  let film = null, last = '';

  const group = (title, ...fields) => [h('h4', { class: 'group' }, title), h('dl', {}, fields)];
  const field = (label, value, about) => h('div', { class: 'field' }, h('dt', {}, label, about && h('small', {}, about)), h('dd', {}, value));

  const rates = (r) => [r.loss && `, loses ${r.loss} %`, r.again && `, delivers ${r.again} % twice`, r.delay && `, is ${time(r.delay)} slower`].filter(Boolean).join('');

  function unsynced(st) {
    const [from, hard] = st.unsynced;
    const what = [from && `entries from ${from} on`, hard && 'term and vote'].filter(Boolean).join(', and ');
    return what ? h('b', { class: 'memory' }, `not yet: ${what}`) : 'everything';
  }

  // pairs is the store: the keys and the values.
  const pairs = (all, keys) => h('div', {}, h('h4', { class: 'group' }, `Store: ${all.length ? `${Math.max(all.length, keys)} ${all.length === 1 ? 'key' : 'keys'}` : 'empty'}${keys > all.length ? `, ${all.length} of them shown` : ''}`),
    all.length ? h('div', { class: 'pairs' }, all.map(([k, v]) => h('span', { class: 'pair', title: `${k}=${v}` }, h('b', {}, k), '=', v.length > 60 ? v.slice(0, 60) + '…' : v))) : null);

  // clients is what it remembers about the clients' sessions.
  const clients = (all) => (all.length ? h('div', {}, h('h4', { class: 'group' }, 'Sessions'),
    h('table', {}, h('tr', {}, h('th', {}, 'session'), h('th', {}, 'last request'), h('th', {}, 'acknowledged up to'), h('th', {}, 'its answer')),
      all.map(([id, [ack, last, answer]]) => h('tr', {}, h('td', { title: id }, id.length > 8 ? `…${id.slice(-6)}` : id), h('td', {}, last), h('td', {}, ack), h('td', {}, answer || 'the client has it'))))) : null);

  function server(id, index) {
    const st = film.stateAt(id, index);
    const end = st.snapshot[0] + st.log.length;
    const lastTerm = st.log.length ? st.log[st.log.length - 1][0] : st.snapshot[1];
    const role = !st.up ? 'down' : [st.role || 'running', st.paused && 'paused'].filter(Boolean).join(', ');
    const left = film.timeLeft(st, film.moments[index].at);
    const members = st.config && st.config.now?.length ? st.config.now.map(name).join(' ') + (st.config.next?.length ? ` → ${st.config.next.map(name).join(' ')}` : '') + (st.config.learners?.length ? `; learners ${st.config.learners.map(name).join(' ')}` : '') : '';
    return [
      h('h3', {}, `${name(id)} · ${role}`, h('button', { type: 'button', class: 'go', onclick: (e) => app.menu.open({ type: 'server', id }, e.target, e) }, 'What can happen to it…')),
      ...(film.roles ? [group('Persistent state',
        field('currentTerm', st.term, 'latest term server has seen'),
        field('votedFor', st.vote ? name(st.vote) : 'none', 'candidateId that received vote in current term'),
        field('log[]', st.log.length ? `${st.snapshot[0] + 1 < end ? `${st.snapshot[0] + 1} to ` : ''}${end}; the last is of term ${lastTerm}` : 'empty', 'log entries; each entry contains command for state machine, and term when entry was received by leader'),
        film.saves.size && st.up ? field('on disk', unsynced(st), 'a power cut loses the rest') : null,
        st.snapshot[0] ? field('snapshot', `up to index ${st.snapshot[0]}, term ${st.snapshot[1]}`, 'lastIncludedIndex and lastIncludedTerm') : null),
        group('Volatile state',
        field('commitIndex', st.commit, 'index of highest log entry known to be committed'),
        field('lastApplied', st.applied, 'index of highest log entry applied to state machine'),
        left !== null ? field('election timer', `${Math.round((1 - left) * st.timer[2])} of ${st.timer[2]} ticks have passed`, 'it starts an election at the end, unless it hears from a leader; a tick is 10 ms') : null,
        st.votes.length ? field('votes', st.votes.map(name).join(' '), 'received in this election') : null,
        members ? field('configuration', members, 'the servers that vote') : null),
        st.progress.length ? group('Volatile state on leaders',
          field('nextIndex[]', st.progress.map((p) => `${name(p[0])}: ${p[1]}`).join('  '), 'for each server, index of the next log entry to send to that server'),
          field('matchIndex[]', st.progress.map((p) => `${name(p[0])}: ${p[2]}`).join('  '), 'for each server, index of highest log entry known to be replicated on server')) : null] : [h('p', { class: 'empty' }, 'This stage has no terms, no elections and no log: the first server leads, and a server keeps only a store in memory.')]),
      pairs(Object.entries(st.store).sort(([a], [b]) => (a < b ? -1 : 1)), st.keys),
      clients(Object.entries(st.sessions)),
      disk(id, index),
      st.log.length ? h('details', { class: 'all' }, h('summary', {}, 'The entries'), h('ol', { class: 'entries', start: st.snapshot[0] + 1 }, st.log.slice(-200).map((e, k, all) =>
        h('li', { value: end - all.length + 1 + k }, h('span', { class: `chip ${termClass(e[0])}` }, e[0]), ' ', command(e[1]))))) : null,
    ];
  }

  // disk shows the files of a server as they are. They come from the engine, which plays
  // the script up to this moment, so they are asked for only where somebody wants to see
  // them. While the film plays, they wait for its next halt.
  let opened = false, asking = 0, shown = { key: '', content: null };
  function disk(id, index) {
    if (!film.saves.size || app.real) return null;
    const m = film.moments[index], half = !!m.half || m.memory === id && m.step > 0;
    const content = h('div', { class: 'files' }), key = `${film.run} ${JSON.stringify(film.script)} ${m.step} ${half} ${id}`;
    const show = async () => {
      if (shown.key === key) { content.replaceChildren(...shown.content); return; }
      if (!content.isConnected) return;
      if (app.playing) { asking = setTimeout(show, 200); return; }
      const was = asking;
      let answer;
      try { answer = files(await asked('disk', film.script, { step: m.step, ...(half && { half }), server: id })); } catch (err) { answer = [h('p', { class: 'empty' }, `The files cannot be shown: ${err.message}.`)]; }
      if (was !== asking) return;
      shown = { key, content: answer };
      content.replaceChildren(...answer);
    };
    const later = () => { clearTimeout(asking); if (shown.key === key) show(); else asking = setTimeout(show, 120); };
    if (opened && shown.content) content.append(...shown.content); // until the others are there
    const d = h('details', { class: 'disk', open: opened, ontoggle: () => { opened = d.open; if (opened) later(); } }, h('summary', {}, 'The files on its disk'), content);
    if (opened) later();
    return d;
  }

  const bytes = (n) => `${n} ${n === 1 ? 'byte' : 'bytes'}`;

  // files shows each line with its checksum; those that a power cut may lose are marked.
  function files(answer) {
    if (!answer.files.length) return [h('p', { class: 'empty' }, 'There is no file.')];
    return answer.files.map(({ name: file, size = 0, synced = 0, parts }) => {
      const lines = parts.flatMap(({ at, text = '' }, k) => {
        let offset = at;
        const encoder = new TextEncoder();
        const all = (text.match(/[^\n]*\n|[^\n]+$/g) || []).map((line) => {
          offset += encoder.encode(line).length;
          const [, sum, rest] = /^([0-9a-f]{8} )?(.*)/s.exec(line.trimEnd());
          return h('li', { class: offset > synced ? 'memory' : '' }, sum && h('span', { class: 'sum' }, sum), rest, offset > synced && ' (not synced)', !line.endsWith('\n') && ' (no end of line)');
        });
        const gap = k > 0 ? [h('li', { class: 'gap' }, '… not shown …')] : [];
        return [...gap, ...all];
      });
      return h('div', {}, h('h4', { class: 'group' }, `${file}: ${bytes(size)}${synced < size ? `, ${bytes(synced)} synced` : ''}`), h('ol', { class: 'lines', tabindex: '0', 'aria-label': `The lines of the file ${file}; each begins with its checksum` }, lines));
    });
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
      const open = box.querySelector('details.all')?.open;
      if (sel?.type === 'server') box.replaceChildren(...server(sel.id, view.index).flat(Infinity).filter(Boolean));
      else if (sel?.type === 'message') box.replaceChildren(...message(sel.message));
      else if (sel?.type === 'link') box.replaceChildren(h('h3', {}, `The link between ${name(sel.from)} and ${name(sel.to)}`),
        h('p', {}, [[sel.from, sel.to], [sel.to, sel.from]].map(([a, b]) => `${name(a)} → ${name(b)}: ${film.cuts(view.index).has(`${a}>${b}`) ? 'cut' : 'passes messages'}${rates(film.rates(view.index, a, b))}. `)));
      else box.replaceChildren(h('p', { class: 'empty' }, 'Click a server, a link or a message to see its state.'));
      const d = box.querySelector('details.all');
      if (d && open) d.open = true;
    },
  };
}
