// Time: play, pause, steps, the slider with its marks, the speed. The slider runs
// over the moments, so quiet time takes little space.

import { h, s, time, termClass } from './dom.js';

const SPEEDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10];
const speedName = (v) => (v < 1 ? `1/${Math.round(1 / v)}` : `${v}×`);

export function makeTime(root, app, score) {
  const b = (label, title, act, cls) => h('button', { type: 'button', class: 'key ' + (cls || ''), title, 'aria-label': title, onclick: act }, label);
  const play = b('▶', 'Play (space)', () => app.toggle(), 'play');
  const speed = h('select', { 'aria-label': 'Speed', title: 'Speed: 1 is real time', onchange: () => { app.speed = Number(speed.value); } },
    SPEEDS.map((v) => h('option', { value: v, selected: v === app.speed }, speedName(v))));
  const brisk = h('input', { type: 'checkbox', checked: true, onchange: () => { app.brisk = brisk.checked; } });
  const clock = h('output', { class: 'clock' });
  const range = h('input', { type: 'range', min: 0, max: 1, step: 1, value: 0, class: 'slider', 'aria-label': 'Virtual time' });
  let wanted = null;
  range.addEventListener('input', () => {
    if (wanted === null) requestAnimationFrame(() => { const to = wanted; wanted = null; app.seek(to); });
    wanted = Number(range.value);
  });
  const marks = s('svg', { class: 'marks', preserveAspectRatio: 'none', 'aria-hidden': 'true' });
  const track = h('div', { class: 'track' }, marks, range);
  // On a wide screen the keys say in words what they step over.
  const word = (text) => h('span', { class: 'word' }, text), sign = (text) => h('span', { class: 'sign' }, text);
  root.append(
    h('div', { class: 'keys' },
      b('|◂', 'To the beginning (Home)', () => app.seek(0)),
      b(['◂', sign('♛'), word(' leader')], 'Previous change of leader ([)', () => app.go('leaderChanges', -1), 'far'),
      b(['◂', sign('§'), word(' decision')], 'Previous decision (shift + left arrow)', () => app.go('decisions', -1)),
      b(['◂', word(' event')], 'Previous event (left arrow)', () => app.step(-1)),
      play,
      b([word('event '), '▸'], 'Next event (right arrow)', () => app.step(1)),
      b([word('decision '), sign('§'), '▸'], 'Next decision (shift + right arrow)', () => app.go('decisions', 1)),
      b([word('leader '), sign('♛'), '▸'], 'Next change of leader (])', () => app.go('leaderChanges', 1), 'far'),
      h('label', { class: 'speed' }, 'speed ', speed),
      h('label', { class: 'brisk', title: 'Pass quickly over time in which no message travels' }, brisk, ' skip quiet time'),
      score, clock),
    track);
  let film = null, width = 0;

  function drawMarks() {
    width = track.clientWidth;
    if (!film || !width) return;
    marks.setAttribute('viewBox', `0 0 ${width} 30`);
    const x = (moment) => 8 + (width - 16) * moment / Math.max(1, film.moments.length - 1);
    const parts = [];
    let last = -9;
    for (const moment of film.commits) { const px = x(moment); if (px - last >= 1.5) { parts.push(s('path', { class: 'committed', d: `M${px},24 v5` })); last = px; } }
    // who led, as a band in the color of the term
    const leaders = film.marks.filter((m) => m.kind === 'leader');
    leaders.forEach((m, i) => parts.push(s('rect', { class: `leadership ${termClass(m.term)}`, x: x(m.moment), y: 20, height: 4, width: Math.max(1, x(leaders[i + 1]?.moment ?? film.moments.length - 1) - x(m.moment)) })));
    for (const m of film.marks) {
      const px = x(m.moment);
      const d = { leader: `M${px - 5},10 l-2,-7 l4,3 l3,-5 l3,5 l4,-3 l-2,7 z`, candidate: `M${px - 3},7 a3,3 0 1 0 6,0 a3,3 0 1 0 -6,0`, crash: `M${px - 4},3 l8,8 m0,-8 l-8,8`, cut: `M${px},1 v12 m-3,-12 h6 m-6,12 h6`, heal: `M${px},3 v9`, differs: `M${px},0 v16 M${px - 5},5 h10 M${px - 5},10 h10 M${px + 4},1 l-8,13`, verdict: `M${px},14 V1 h-9 l3,4 l-3,4 h9`, fine: `M${px},14 V1 h-9 v8 h9` }[m.kind];
      parts.push(s('path', { class: `mark ${m.kind} ${termClass(m.term)}`, d }, s('title', {}, m.text)));
    }
    (film.script.deeds || []).forEach((d, i) => {
      const o = film.outcomes[i];
      if (!o?.applied) return;
      const px = x(film.momentOfStep(Math.max(0, (o.step || d.at) - 1)));
      parts.push(s('path', { class: 'mark deed', d: `M${px},0 l5,6 l-5,6 l-5,-6 z` }));
    });
    marks.replaceChildren(...parts);
  }
  new ResizeObserver(drawMarks).observe(track);

  return {
    reset(f) { film = f; range.max = f.moments.length - 1; drawMarks(); },
    draw(view) {
      if (!film) return;
      range.value = view.index;
      range.setAttribute('aria-valuetext', time(view.t));
      play.textContent = app.playing ? '❚❚' : '▶';
      play.setAttribute('aria-label', app.playing ? 'Pause (space)' : 'Play (space)');
      clock.textContent = `${time(view.t)} · step ${film.moments[view.index].step}`;
    },
  };
}
