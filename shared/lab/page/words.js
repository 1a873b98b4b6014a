// What events, messages and commands are called.

import { name, names, time } from './dom.js';

export function parse(line) {
  try { return JSON.parse(line); } catch { return {}; }
}

// command writes a command of the store as people write it.
export function command(text) {
  if (!text) return 'no-op';
  const c = parse(text);
  return operation(c) || (c.members || c.now || c.voters ? 'config' : text.slice(0, 24));
}

export function operation(c) {
  switch (c.op) {
    case 'put': return `${c.key}=${c.value}`;
    case 'append': return `${c.key}+=${c.value}`;
    case 'get': return `get ${c.key}`;
    case 'delete': return `delete ${c.key}`;
    case 'cas': return `${c.key}: ${c.old}→${c.value}`;
    case undefined: return '';
    case 'open': return 'new session';
    case 'change': return [c.add?.length && `add ${c.add.map((m) => name(m.id)).join(' ')}`, c.remove?.length && `remove ${c.remove.map(name).join(' ')}`].filter(Boolean).join(', ') || 'change nothing';
    case 'transfer': return `make ${name(c.to)} the leader`;
    default: return c.key === undefined ? c.op : `${c.op} ${c.key}`;
  }
}

// describe says what a message is: its type, a few words to show on it, and
// whether it refuses.
export function describe(line) {
  const o = parse(line);
  const term = o.term || 0;
  const is = (type, label, title, no) => ({ type, label, title, term, no: !!no });
  let x;
  if ((x = o.requestVote)) return x.preVote ? is('vote', 'would you vote?', 'RequestVote, asked in advance') : is('vote', 'vote?', 'RequestVote');
  if ((x = o.requestVoteReply)) return x.granted ? is('vote-reply', 'yes', 'RequestVote reply: vote granted') : is('vote-reply', 'no', 'RequestVote reply: vote refused', true);
  if ((x = o.appendEntries)) {
    const n = (x.entries || []).length;
    if (!n) return is('heartbeat', '', 'a heartbeat (AppendEntries without entries)');
    const first = x.entries[0];
    return { ...is('append', n === 1 ? brief(first, (x.prevLogIndex || 0) + 1) : `${n} entries`, `AppendEntries with ${n} ${n === 1 ? 'entry' : 'entries'}`), entryTerm: first.term || term };
  }
  if ((x = o.appendEntriesReply)) return x.success ? is('append-reply', '', 'AppendEntries reply: success') : is('append-reply', 'no', 'AppendEntries reply: refused', true);
  if (o.installSnapshot) return is('snapshot', 'snapshot', 'InstallSnapshot');
  if ((x = o.installSnapshotReply)) return is('append-reply', '', 'InstallSnapshot reply');
  if (o.readIndex) return is('read', 'read?', 'ReadIndex request');
  if ((x = o.readIndexReply)) return is('read', x.index ? `read at ${x.index}` : 'read', 'ReadIndex reply');
  if ((x = o.replicate)) return is('append', operation(x.command || {}).slice(0, 14), 'a command to replicate');
  if (o.replicateReply) return is('append-reply', '', 'the reply to a command');
  const key = Object.keys(o).find((k) => typeof o[k] === 'object') || 'message', words = key[0].toUpperCase() + key.slice(1);
  return is('other', words, words, o[key] && o[key].ok === false);
}

function brief(entry, index) {
  const text = entry.command && entry.command.op ? operation(entry.command) : '';
  if (text) return text.length <= 8 ? text : `entry ${entry.index || index}`;
  return entry.kind === 'noop' ? 'no-op' : entry.kind || 'entry';
}

export const client = (id) => (id > 1_000_000 ? `your client ${id - 1_000_000}` : `client ${id}`);

export function answer(line) {
  const r = parse(line);
  if (r.ok) return r.value !== undefined ? `“${r.value}”` : r.found === false ? 'not found' : 'ok';
  return r.error ? r.error.code.replaceAll('_', ' ') : 'answer';
}

// outcome is what a client has learned from its answer.
export function outcome(e) {
  const r = parse(e.message);
  return (r.error ? r.error.message : answer(e.message)) + (e.text ? '; ' + e.text : '');
}

// passing says whether messages pass from some servers to others.
export const passing = (kind, from, to) => `messages from ${names(from)} to ${names(to)} ${kind === 'cut' ? 'are lost from now on' : 'pass again'}`;

// sentence describes an event in words; '' for those that say nothing alone.
export function sentence(e) {
  switch (e.kind) {
    case 'decide': return e.reason ? e.reason.text : '';
    case 'note': return e.text || '';
    case 'verdict': return e.reason ? e.reason.text : e.text || '';
    case 'start': return `${name(e.node)} starts${e.text ? ', ' + e.text : ''}`;
    case 'stop': return `${name(e.node)} stops: ${e.text || 'by itself'}`;
    case 'crash': return `${name(e.node)} goes down: ${e.text || 'it crashed'}`;
    case 'pause': return `${name(e.node)} is paused`;
    case 'resume': return `${name(e.node)} continues`;
    case 'cut': return e.from ? passing('cut', [e.from], [e.to]) : e.text || 'links are cut';
    case 'heal': return e.from ? passing('heal', [e.from], [e.to]) : e.text || 'all links pass messages again';
    case 'send': return `${name(e.from)} sends ${describe(e.message).title} to ${name(e.to)}`;
    case 'deliver': return `${name(e.to)} receives ${describe(e.message).title} from ${name(e.from)}`;
    case 'drop': return `${describe(e.message).title} from ${name(e.from)} to ${name(e.to)} is lost: ${e.text || 'the network loses it'}`;
    case 'invoke': return `${client(e.client)} asks ${name(e.to)}: ${operation(parse(e.message))}`;
    case 'request': return `${name(e.node)} receives a request of ${client(e.client)}: ${operation(parse(e.message))}`;
    case 'reply': return `${name(e.node)} answers ${client(e.client)}: ${answer(e.message)}`;
    case 'return': return `${client(e.client)} has its answer: ${outcome(e)}`;
    case 'role': return e.text && !e.text.startsWith(name(e.node)) ? `${name(e.node)} ${e.text}${e.term ? `, term ${e.term}` : ''}` : e.text || '';
    case 'apply': return `${name(e.node)} applies entry ${e.index}: ${command(e.message)}`;
    case 'save': return `${name(e.node)} syncs its disk`;
    case 'trouble': return `${name(e.node)}: ${e.text || ''}`;
  }
  return e.text || '';
}

// deed describes a deed in words.
export function deed(d) {
  const on = name(d.server), link = `from ${name(d.from)} to ${name(d.to)}`;
  switch (d.do) {
    case 'request': return `your client ${d.client} asks ${d.server ? on + ' only' : 'the cluster'}: ${operation(parse(d.request))}`;
    case 'kill': return `kill ${on}`;
    case 'power-cut': return `cut the power of ${on}`;
    case 'power-cut-in-write': return `cut the power of ${on} in the middle of its next write`;
    case 'restart': return `restart ${on}`;
    case 'pause': return `pause ${on}`;
    case 'resume': return `resume ${on}`;
    case 'full-disk': return `fill the disk of ${on}`;
    case 'failed-fsync': return `let the next fsync of ${on} fail`;
    case 'cut': return `cut the link ${link}`;
    case 'heal': return `heal the link ${link}`;
    case 'partition': return 'partition the network: ' + d.groups.map((g) => g.map(name).join(' ')).join(' | ');
    case 'heal-all': return 'heal the whole network';
    case 'lose': return `lose message ${d.number} ${link}`;
    case 'delay': return `delay message ${d.number} ${link}${d.for ? ' by ' + time(d.for) : ''}`;
    case 'repeat': return `deliver message ${d.number} ${link} twice`;
    case 'expire': return `expire the election timeout of ${on}`;
    case 'lose-next': return `lose the next ${d.kind} ${link}`;
    case 'link-loss': return d.percent ? `lose ${d.percent} % of the messages ${link}` : `lose no more messages ${link}`;
    case 'link-repeat': return d.percent ? `deliver ${d.percent} % of the messages ${link} twice` : `deliver the messages ${link} once again`;
    case 'link-delay': return d.for ? `delay all messages ${link} by ${time(d.for)}` : `delay the messages ${link} no longer`;
    case 'end-loads': return 'end the requests of the story\'s own clients';
    case 'end-filter': return 'end the story\'s rule about which messages are lost';
    case 'end-faults': return 'end the story\'s random faults';
    case 'end-plans': return 'end what the story has planned for later';
    case 'clock': return `run the clock of ${on} at ${d.percent || 0} %`;
  }
  return d.do;
}

// standing describes what a story goes on doing, by the deed that would end it.
export const standing = (deed) => ({
  'end-loads': 'its clients go on sending random requests',
  'end-filter': 'its rule still decides which messages are lost',
  'end-faults': 'its random faults go on',
  'end-plans': 'what it has planned for later still happens',
}[deed] || deed);

// pretty indents a line of JSON and changes nothing else, so that large numbers
// keep all their digits.
export function pretty(line) {
  let out = '', depth = 0;
  const newline = () => '\n' + '  '.repeat(depth);
  for (let i = 0; i < line.length; i++) {
    const c = line[i];
    if (c === '"') {
      let j = i + 1;
      while (j < line.length && line[j] !== '"') j += line[j] === '\\' ? 2 : 1;
      out += line.slice(i, j + 1);
      i = j;
    } else if (c === '{' || c === '[') {
      if (line[i + 1] === (c === '{' ? '}' : ']')) { out += line.slice(i, i + 2); i++; } else { depth++; out += c + newline(); }
    } else if (c === '}' || c === ']') { depth--; out += newline() + c; } else if (c === ',') out += c + newline();
    else if (c === ':') out += ': ';
    else out += c;
  }
  return out;
}
