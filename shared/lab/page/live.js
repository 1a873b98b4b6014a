// A real cluster: the film of its traces, which may still grow. There is no script, so
// nobody can go another way from a moment; what is done to a running cluster happens
// now, whatever moment is shown.

import { h, name } from './dom.js';
import { Film } from './film.js';

// MOST is how many events the page keeps of a running cluster before it asks for the
// recording again, which is shorter.
const MOST = 9000;

// makeReal returns what shows a real cluster, or null if the address names none. show
// puts a film on the page.
export function makeReal(app, show) {
  const named = /^#real:(recorded|live):([0-9a-f]+)$/.exec(location.hash);
  if (!named) return null;
  const live = named[1] === 'live', key = named[2];
  const $ = (id) => document.getElementById(id);
  let parts = { events: [], frames: [], length: 0, steps: 0 }; // what has come
  let shown = 0; // how many of the events are in the film that is shown
  let following = live, source = null, note = '', leftOut = '', lost = false;

  const bar = h('div', { id: 'live', role: 'status' });
  const state = h('span'), follow = h('button', { type: 'button' });
  follow.addEventListener('click', () => (following ? stop() : resume()));
  bar.append(state, ...(live ? [follow] : []));
  $('caption').before(bar);
  document.body.classList.add('real');
  for (const id of ['story', 'seed']) $(id).closest('label').hidden = true;
  for (const id of ['tours', 'copy']) if ($(id)) $(id).hidden = true;
  $('claim').textContent = live ? 'The cluster that is running on this machine. Click a server or a link to kill, pause or cut: what you do really happens.' : 'What a real cluster did. You can watch it and go back in time.';
  document.querySelector('[data-tab=deeds]').hidden = true;
  if (!live) $('cluster').hidden = true;

  function film() {
    shown = parts.events.length;
    return new Film({ script: { stage: app.stage.stage }, ...parts });
  }

  function status() {
    const waiting = parts.events.length - shown;
    bar.className = note || lost ? 'bad' : following ? 'following' : '';
    state.replaceChildren(lost ? 'The lab has ended. What it has shown can be watched.' : note || (!live ? leftOut : following ? 'live' : `the picture stands still${waiting ? `; ${waiting} new ${waiting === 1 ? 'event' : 'events'}` : ''}`));
    if (live && leftOut) state.title = leftOut;
    follow.textContent = following ? 'Stop following' : 'Follow';
    follow.hidden = following && (!!note || lost); // nothing more will come
    bar.hidden = !live && !state.textContent;
  }

  // show the newest film, at its end or at the step that is shown now.
  function redraw() {
    const f = film();
    const last = f.moments[f.moments.length - 1];
    show(f, following || !app.film ? { step: last.step } : { step: app.film.moments[app.index].step });
    status();
  }

  function stop() { following = false; status(); }
  function resume() { following = true; redraw(); }

  function take(text) {
    const x = JSON.parse(text);
    leftOut = x.leftOut;
    note = x.note;
    lost = false;
    if (x.whole) parts = { events: x.film.events, frames: x.film.frames };
    else { parts.events.push(...x.film.events); parts.frames.push(...x.film.frames); }
    parts.length = x.film.length;
    parts.steps = x.film.steps;
    if (x.whole) shown = Math.min(shown, parts.events.length);
    if (!parts.events.length) { state.textContent = note || 'Waiting for the first events…'; return; }
    if ((following && !app.held) || !app.film) redraw(); else status();
    if (parts.events.length > MOST && following) listen();
  }

  function listen() {
    source?.close();
    source = new EventSource(`live?key=${key}`);
    source.onmessage = (e) => take(e.data);
    source.onerror = () => { lost = true; status(); };
  }

  const act = async (deed) => {
    const answer = await fetch(`deed?key=${key}`, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(deed) }).catch((err) => ({ ok: false, json: async () => ({ error: err.message }) }));
    if (!answer.ok) { app.say(`That did not happen: ${(await answer.json().catch(() => ({}))).error || answer.status}`, true); return; }
    resume();
  };

  // The menus: what can be done to the servers of the running cluster, and why not.
  function entries(what) {
    const f = app.film, now = f.moments.length - 1, cuts = f.cuts(now);
    const item = (label, deed, hint) => [label, hint, () => act(deed)];
    if (what.type === 'server') {
      const id = what.id, st = f.stateAt(id, now), others = f.ids.filter((x) => x !== id);
      if (!st.up) return [item('Restart', { do: 'restart', servers: [id] }, 'With what is on its disk')];
      return [
        item('Kill the process', { do: 'kill', servers: [id] }, 'With SIGKILL; what it has written stays on its disk'),
        st.paused ? item('Resume', { do: 'resume', servers: [id] }) : item('Pause the process', { do: 'pause', servers: [id] }, 'With SIGSTOP; its connections stay open'),
        item('Restart', { do: 'restart', servers: [id] }, 'It stops in order, and starts again'),
        others.every((x) => cuts.has(`${id}>${x}`)) ? item('Heal its links', { do: 'heal', servers: [id], others }) : item('Cut it off from all others', { do: 'cut', servers: [id], others }),
      ];
    }
    if (what.type === 'link') {
      const { from, to } = what, on = { servers: [from], others: [to] };
      return [cuts.has(`${from}>${to}`) || cuts.has(`${to}>${from}`) ? item('Heal this link', { do: 'heal', ...on }) : item('Cut this link', { do: 'cut', ...on }, 'Both directions')];
    }
    if (what.type === 'cluster') {
      const leader = f.ids.map((id) => [id, f.stateAt(id, now)]).filter(([, st]) => st.up && !st.paused && st.role === 'leader').sort((a, b) => b[1].term - a[1].term)[0]?.[0];
      return [
        !leader && ['No server leads now', 'They will elect a leader if a majority can', null],
        leader && item(`Kill the leader, ${name(leader)}`, { do: 'kill', servers: [leader] }, 'With SIGKILL'),
        leader && item(`Pause the leader, ${name(leader)}`, { do: 'pause', servers: [leader] }, 'With SIGSTOP'),
        leader && item(`Cut the leader, ${name(leader)}, off from all others`, { do: 'cut', servers: [leader], others: f.ids.filter((x) => x !== leader) }),
        cuts.size && item('Heal the whole network', { do: 'heal' }),
        ['Requests come from a terminal', 'Send one there, such as put x 1, and see it here', null],
      ].filter(Boolean);
    }
    return null;
  }

  return {
    // more leaves out what needs a script.
    more: (entries) => entries.filter(([label]) => !/^(Compare|Copy link)/.test(label)),

    // begin shows what there is.
    async begin() {
      const menu = app.menu;
      const open = menu.open.bind(menu);
      menu.open = (what, from, ev) => {
        if (live && following) stop();
        const can = live && entries(what);
        const title = { server: () => name(what.id), link: () => `The link between ${name(what.from)} and ${name(what.to)}`, cluster: () => 'The whole cluster', message: () => what.message.title }[what.type]?.();
        if (!title) { open(what, from, ev); return; }
        menu.list(title, can || [[live ? 'Nothing can be done to it' : 'Kill, pause, cut…', live ? 'A message of a real cluster is on its way whatever you see here' : 'This has happened already. The cluster that is running now is shown by: lab --live', null]], from, ev);
      };
      for (const what of ['seek', 'seekTime', 'step', 'go', 'start', 'travel']) {
        const does = app[what];
        if (does) app[what] = (...args) => { if (following) stop(); return does.apply(app, args); };
      }
      if (live) { status(); listen(); return; }
      const answer = await fetch(`recording?key=${key}`);
      const x = await answer.json();
      if (!answer.ok) throw new Error(x.error);
      leftOut = x.leftOut;
      parts = { events: x.film.events, frames: x.film.frames, length: x.film.length, steps: x.film.steps };
      if (!parts.events.length) throw new Error('the traces hold no events');
      show(film(), { step: 0 });
      status();
    },
  };
}
