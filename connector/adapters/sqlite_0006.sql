-- Fewer trees to change in each commit: every one of them is a page of the log, and all of them together were most of what a commit cost.

-- A fact stands where its number says: `id` is participant * 2^44 + sequence. What is appended to a table of that kind fills one page after
-- the other, while a key of two columns splits pages.
create table evidence_numbered(
  id integer primary key,
  participant integer generated always as (id >> 44) virtual,
  sequence integer generated always as (id & 0xFFFFFFFFFFF) virtual,
  what text not null,
  kind text,
  pid text,
  peer text,
  state text,
  at real not null,
  move text,
  digest blob,
  detail blob,
  entry text,
  leaf blob,
  salt blob,
  hidden blob
) strict;
insert into evidence_numbered(id, what, kind, pid, peer, state, at, move, digest, detail, entry, leaf, salt, hidden)
  select (participant << 44) + sequence, what, kind, pid, peer, state, at, move, digest, detail, entry, leaf, salt, hidden
  from evidence order by participant, sequence;
drop table evidence;
alter table evidence_numbered rename to evidence;
create index evidence_process on evidence(participant, pid);
create index evidence_closing on evidence(participant, what, pid) where what = 'closing-signed';

-- Of a process only the last accepted message can come again, with the answer that it got. `process` is the process's id.
create table inbox_last(
  process integer primary key,
  at real not null,
  move text not null,
  status integer not null,
  digest blob not null,
  answer blob not null,
  body blob not null
) strict;
insert into inbox_last(process, at, move, status, digest, answer, body)
  select process.id, at, move, status, digest, answer, body from process join inbox on inbox.id = (
    select max(id) from inbox as any where any.participant = process.participant and any.pid = process.pid)
  order by process.id;
drop table inbox;
alter table inbox_last rename to inbox;

-- A process stands in the list of the open ones, which is short, and once, for good, in those of the ended ones: a list is made of both.
create index process_open on process(participant, kind, created, pid) where final = 0;
create index process_ended on process(participant, kind, state, created, pid) where final = 1;
create index process_ended_of_peer on process(participant, kind, peer, created, pid, state) where final = 1;
create index process_ended_transfer on process(participant, updated) where final = 1 and kind = 'transfer';
drop index process_newest;
drop index process_newest_of_state;
drop index process_newest_of_peer;
drop index process_final;

-- The rows of the outbox are small, few, and gone soon.
create table outbox_few(
  participant integer not null,
  id text not null,
  pid text not null,
  kind text not null check (kind in ('negotiation', 'transfer')),
  peer text not null,
  act text not null,
  move text not null,
  path text not null,
  body blob not null,
  due real not null,
  deadline real not null,
  created real not null,
  attempts integer not null,
  dead integer not null,
  error text,
  trace text,
  claimed_by text,
  epoch integer not null,
  until real not null,
  primary key (participant, id)
) strict, without rowid;
insert into outbox_few select * from outbox;
drop table outbox;
alter table outbox_few rename to outbox;
create index outbox_dead on outbox(participant, created, id) where dead = 1;
