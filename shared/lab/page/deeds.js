// What somebody does: the menus of servers, links and messages, and the list of
// what has been done.

import { h, name, time } from './dom.js';
import { deed as describe, standing } from './words.js';
import { asked } from './engine.js';

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
    (menu.querySelector('button:not(.close):not(:disabled),input') || menu.querySelector('.close')).focus({ preventScroll: true });
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

  // form asks for a number and does something with it.
  const form = (before, after, value, most, deeds, needs) => app.stage.deeds.includes(needs) && (() => {
    const n = h('input', { type: 'number', min: 0, max: most, value, 'aria-label': `${before} … ${after}` });
    return h('form', { class: 'line', onsubmit: (e) => { e.preventDefault(); close(true); app.act(...deeds(Math.round(Number(n.value)))); } }, before, ' ', n, ' ', after, ' ', h('button', { type: 'submit', class: 'go' }, 'Do'));
  })();

  // lossy changes how the messages of one direction of a link travel.
  function lossy(a, b) {
    if (!app.stage.deeds.includes('link-loss')) return null;
    const way = h('select', { 'aria-label': 'Direction' }, [[a, b], [b, a]].map(([x, y]) => h('option', { value: `${x} ${y}` }, `${name(x)} → ${name(y)}`)));
    const what = h('select', { 'aria-label': 'What happens' },
      app.film.kinds().map((k) => h('option', { value: `lose-next ${k}` }, `lose the next ${k}`)),
      [10, 50].map((p) => h('option', { value: `link-loss ${p}` }, `lose ${p} % of all`)), [10, 50].map((p) => h('option', { value: `link-repeat ${p}` }, `deliver ${p} % twice`)),
      [20, 200].map((ms) => h('option', { value: `link-delay ${ms}` }, `delay all by ${ms} ms`)),
      ['loss', 'repeat', 'delay'].map((k) => h('option', { value: `link-${k} 0` }, `end the ${k}`)));
    return h('form', { class: 'request', onsubmit: (e) => {
      e.preventDefault();
      const [x, y] = way.value.split(' ').map(Number), [kind, arg] = what.value.split(' ');
      const d = { do: kind, from: x, to: y };
      if (kind === 'lose-next') d.kind = arg; else if (kind === 'link-delay') { if (Number(arg)) d.for = Number(arg) * MS; } else if (Number(arg)) d.percent = Number(arg);
      close(true);
      app.act(d);
    } }, h('b', {}, 'Messages of this link'), h('div', {}, way, what, h('button', { type: 'submit', class: 'go' }, 'Do')));
  }

  const ask = (q) => ({ do: 'request', client: 1, request: JSON.stringify(q) });
  const address = (id) => `10.0.0.${id}:7000`;

  // members are the changes of the members that a server can be part of.
  function members(id, st) {
    if (!app.stage.ops.includes('change')) return [];
    const view = app.view();
    const leader = app.film.ids.map((x) => app.film.stateAt(x, view.index)).filter((x) => x.up && x.role === 'leader' && x.config).sort((a, b) => b.term - a.term)[0];
    const now = leader?.config.next?.length ? leader.config.next : leader?.config.now || [];
    const last = (label, ...deeds) => h('button', { type: 'button', class: 'item', onclick: () => { close(true); app.act(...deeds); } }, label);
    if (!leader) return [];
    if (!now.includes(id)) return [last(st.up ? 'Add it to the members' : 'Start it and add it to the members', ...(st.up ? [] : [{ do: 'restart', server: id }]), ask({ op: 'change', add: [{ id, address: address(id) }] }))];
    return [st.role !== 'leader' && st.up && item('Transfer leadership to it', ask({ op: 'transfer', to: id })), now.length > 1 && item('Remove it from the members', ask({ op: 'change', remove: [id] }))];
  }

  // grow adds a machine to the cluster, if the script and not a story decides how many
  // there are. A machine that is down changes nothing before it is started.
  function grow() {
    const { story, servers, spare } = app.script, most = 9, id = (servers || 5) + (spare || 0) + 1;
    if (!app.stage.ops.includes('change') || story || id > most) return [];
    return [h('button', { type: 'button', class: 'item', onclick: async () => {
      close(true);
      const before = app.script;
      app.script = { ...before, spare: (spare || 0) + 1 };
      if (!await app.act({ do: 'restart', server: id }, ask({ op: 'change', add: [{ id, address: address(id) }] }))) app.script = before;
    } }, `Start ${name(id)} and add it to the members`)];
  }

  const entry = (label, about, act) => h('button', { type: 'button', class: 'item', disabled: !act, onclick: () => { close(true); act(); } }, h('b', {}, label), about && h('small', {}, about));

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
          app.film.moments[view.index].memory === id && item('Cut the power now, before the fsync', { do: 'power-cut-in-write', server: id, at: app.film.moments[view.index].step }, 'What is only in memory is lost; what it has sent is on its way'),
          item('Cut the power in its next write', { do: 'power-cut-in-write', server: id }, 'After it has sent, and before its fsync'),
          st.paused ? item('Resume', { do: 'resume', server: id }) : item('Pause the process', { do: 'pause', server: id }),
          st.role !== 'leader' && !app.stage.appointed && item('Expire its election timeout', { do: 'expire', server: id }),
          form('Its clock runs at', '% speed', 200, 1000, (n) => [{ do: 'clock', server: id, percent: n }], 'clock'),
          ...members(id, st),
          item('Fill its disk', { do: 'full-disk', server: id }), item('Let its next fsync fail', { do: 'failed-fsync', server: id }),
          app.film.ids.length > 2 && item('Cut it off from all others', { do: 'partition', groups: [[id], app.film.ids.filter((x) => x !== id)] }), links,
        ] : [item(app.film.tracks.has(id) ? 'Restart' : 'Start', { do: 'restart', server: id }), ...members(id, st), item('Cut it off from all others', { do: 'partition', groups: [[id], app.film.ids.filter((x) => x !== id)] }), links], from, ev);
      } else if (what.type === 'link') {
        const { from: a, to: b } = what, cuts = app.film.cuts(view.index);
        const way = (x, y) => (cuts.has(`${x}>${y}`) ? item(`Heal ${name(x)} → ${name(y)}`, { do: 'heal', from: x, to: y }) : item(`Cut ${name(x)} → ${name(y)}`, { do: 'cut', from: x, to: y }));
        const both = (kind, label) => h('button', { type: 'button', class: 'item', onclick: () => { close(true); app.act({ do: kind, from: a, to: b }, { do: kind, from: b, to: a }); } }, label);
        open(`The link between ${name(a)} and ${name(b)}`, [
          cuts.has(`${a}>${b}`) && cuts.has(`${b}>${a}`) ? both('heal', 'Heal both directions') : both('cut', 'Cut both directions'), way(a, b), way(b, a),
          lossy(a, b),
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
        open('Guided tours', own.map((x) => entry(x.title, `${x.about} ${x.stops} steps.`, () => app.tour.begin(x.name))).concat(elsewhere(app)), from, ev);
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
          ...grow(),
          (app.film.cuts(view.index).size > 0 || (app.script.deeds || []).some((d) => d.do.startsWith('link-'))) && item('Heal the whole network', { do: 'heal-all' }),
        ], from, ev);
      }
    },
  };
}

// elsewhere lists the tours of the other stages. A site has a page for each stage;
// on this machine each stage has a program.
function elsewhere(app) {
  const others = app.tours.filter((x) => x.stage !== app.stage.stage);
  if (!others.length) return [];
  return [h('details', { class: 'elsewhere' }, h('summary', {}, 'Tours of other stages'), h('ul', {}, others.map((x) => h('li', {},
    app.stage.engine ? h('a', { href: `../${x.stage}/?tour=${x.name}` }, x.title) : x.title, h('small', {}, app.stage.engine ? x.stage : `go run ./${x.stage} lab --tour ${x.name}`)))))];
}

// LABELS are what deeds are called where one is chosen.
const LABELS = {
  request: 'send a request', kill: 'kill the process', 'power-cut': 'cut the power', 'power-cut-in-write': 'cut the power in its next write', restart: 'start or restart',
  pause: 'pause', resume: 'resume', 'full-disk': 'fill the disk', 'failed-fsync': 'let the next fsync fail', cut: 'cut one direction of a link', heal: 'heal one direction of a link',
  partition: 'partition the network', 'heal-all': 'heal the whole network', lose: 'lose a message', delay: 'delay a message', repeat: 'deliver a message twice',
  expire: 'expire the election timeout', clock: 'change the speed of the clock', 'lose-next': 'lose the next message of a kind',
  'link-loss': 'lose some messages of a link', 'link-repeat': 'deliver some messages of a link twice', 'link-delay': 'delay all messages of a link',
};

// editor is a form that changes a deed: what happens, to what, and when. change gets
// the new deed.
function editor(app, was, change) {
  const ids = app.film.ids, fields = h('div', { class: 'fields' }), read = {};
  const value = { server: ids[0], from: ids[0], to: ids[1] || ids[0], number: 1, kind: '', client: 1, ...was };
  const row = (text, input) => h('label', {}, h('span', {}, text), input);
  const select = (choices, chosen) => h('select', {}, choices.map(([v, text]) => h('option', { value: v, selected: String(v) === String(chosen) }, text)));
  const number = (v, most, least = 0) => h('input', { type: 'number', min: least, max: most, step: 'any', value: v, required: true });
  const add = (field, text, input, get) => { read[field] = () => get(input); fields.append(row(text, input)); };
  const whole = (input) => Math.round(Number(input.value));
  const server = (field, text) => add(field, text, select(ids.map((id) => [id, name(id)]), value[field]), whole);

  const make = {
    server: () => (doing.value === 'request' ? add('server', 'Through', select([[0, 'the client finds the leader'], ...ids.map((id) => [id, `${name(id)} only`])], was.do === 'request' ? was.server || 0 : 0), whole) : server('server', 'Server')),
    from: () => server('from', 'From'),
    to: () => server('to', 'To'),
    number: () => add('number', 'Number of the message on this link', number(value.number, 1e9, 1), whole),
    kind: () => add('kind', 'Kind', select([...new Set([value.kind, ...app.film.kinds()])].filter(Boolean).map((k) => [k, k]), value.kind), (i) => i.value),
    for: () => add('for', 'By how many milliseconds', number((value.for || 0) / MS, 60_000), (i) => Math.round(Number(i.value) * MS)),
    percent: () => add('percent', 'Percent', number(value.percent || 0, doing.value === 'clock' ? 1000 : 100), whole),
    client: () => add('client', 'Number of your client', number(value.client, 100, 1), whole),
    request: () => add('request', 'Request', h('textarea', { rows: 2, spellcheck: 'false', required: true }, value.request || '{"op":"put","key":"x","value":"1"}'), (i) => i.value.trim()),
    groups: () => add('groups', 'Sides, such as 1 2 | 3 4 5', h('input', { required: true, pattern: '[n0-9, |]+', value: (value.groups || [[ids[0]], ids.slice(1)]).map((g) => g.join(' ')).join(' | ') }),
      (i) => i.value.split('|').map((side) => (side.match(/\d+/g) || []).map(Number)).filter((side) => side.length)),
  };
  const doing = select(app.stage.deeds.map((d) => [d, LABELS[d] || describe({ do: d })]), was.do);
  const fill = () => {
    for (const k of Object.keys(read)) delete read[k];
    fields.replaceChildren();
    for (const f of app.stage.fields[doing.value]) make[f]();
  };
  doing.addEventListener('change', fill);
  fill();
  const at = number(was.at, app.film.steps + 1, 1);
  at.setAttribute('step', '1');
  const m = app.film.moments[app.index], here = m.half ? m.step : m.step + 1;
  return h('form', { class: 'edit', 'aria-label': `Change: ${describe(was)}`, onsubmit: (e) => {
    e.preventDefault();
    const step = whole(at), before = app.film.moments[app.film.momentOfStep(step - 1)], ns = step === was.at ? was.time : Math.round(before.at);
    const deed = { at: step, ...(ns && { time: ns }), do: doing.value };
    for (const [field, get] of Object.entries(read)) { const v = get(); if (v) deed[field] = v; }
    change(deed);
  } }, row('What happens', doing), fields, row('Before step', at),
  h('div', { class: 'buttons' }, h('button', { type: 'submit', class: 'go' }, 'Play it like this'), h('button', { type: 'button', onclick: () => { at.value = here; } }, `Now (before step ${here})`), h('button', { type: 'button', onclick: () => change(null) }, 'Cancel')));
}

export function makeDeeds(root, app) {
  const list = h('ol', { class: 'deeds', 'aria-label': 'What you did' }), test = h('div', { class: 'test' });
  root.append(list, test);

  // copy asks for a test in Go that plays the script, shows it and copies it.
  async function copy() {
    const script = app.script;
    let text;
    try { ({ text } = await asked('test', script)); } catch (err) { app.say(`There is no test in Go: ${err.message}.`, true); return; }
    if (app.script !== script) return;
    test.querySelector('pre')?.remove();
    test.append(h('pre', { tabindex: '0', 'aria-label': 'The test in Go' }, text));
    try { await navigator.clipboard.writeText(text); app.say('The test is copied. Its first comment says where to save it and how to run it.'); } catch { app.say('The test is below the list.'); }
  }

  function edit(li, i, deed) {
    const form = editor(app, deed, (changed) => {
      if (changed) app.edit(i, changed); else { form.replaceWith(...before); li.querySelector('.change').focus(); }
    });
    const before = [...li.childNodes];
    li.replaceChildren(form);
    form.querySelector('select').focus();
  }

  return {
    reset(film) {
      const deeds = film.script.deeds || [];
      list.replaceChildren(...deeds.map((d, i) => {
        const o = film.outcomes[i] || {};
        const li = h('li', { class: o.applied ? '' : 'failed' },
          h('button', { type: 'button', class: 'jump', onclick: () => app.seek(film.momentOfStep(d.at)) },
            h('span', { class: 'head' }, h('time', {}, `before step ${d.at}${d.time ? ', ' + time(d.time) : ''}`)),
            h('span', { class: 'text' }, describe(d)), !o.applied && h('span', { class: 'not' }, `did not apply: ${o.why || 'the film ends before it'}`)),
          app.stage.fields?.[d.do] && h('button', { type: 'button', class: 'change', 'aria-label': `Change: ${describe(d)}`, title: 'Change it', onclick: () => edit(li, i, d) }, '✎'),
          h('button', { type: 'button', class: 'remove', 'aria-label': `Undo: ${describe(d)}`, title: 'Undo', onclick: () => app.undo(i) }, '×'));
        return li;
      }));
      // What a story goes on doing after the first deed can be ended there.
      const left = film.standing.filter((what) => !deeds.some((d) => d.do === what));
      list.prepend(...left.map((what) => h('li', {},
        h('span', { class: 'jump' }, h('span', { class: 'head' }, 'from the story'), h('span', { class: 'text' }, standing(what))),
        h('button', { type: 'button', class: 'remove', 'aria-label': describe({ do: what }), title: 'End it', onclick: () => app.endStanding(what) }, '×'))));
      if (!deeds.length) list.append(h('li', { class: 'empty' }, 'Nothing yet. Click a server, a link or a message, and decide what happens to it. The film is then played again from this moment on.'));
      test.replaceChildren(...(app.real ? [] : [h('button', { type: 'button', class: 'copy', title: 'A test for this stage that plays this film again', onclick: copy }, 'Copy as Go')]));
    },
    draw() {},
  };
}
