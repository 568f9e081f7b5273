-- Every table carries the participant whose connector wrote the row, so that several can share one file.
-- Times are POSIX seconds in UTC, digests are raw bytes, `rest` and `detail` are JSON. What is queried has a column of its own.

create table participant(
  number integer primary key,
  id text not null unique
) strict;

-- pids are ordered by time, so that new rows share pages; the list is newest first.
create table process(
  id integer primary key,
  participant integer not null,
  pid text not null,
  kind text not null check (kind in ('negotiation', 'transfer')),
  role text not null check (role in ('consumer', 'provider')),
  peer text not null,
  peer_pid text,
  state text not null check (state in ('INITIAL', 'REQUESTED', 'OFFERED', 'ACCEPTED', 'AGREED', 'VERIFIED', 'FINALIZED',
                                       'STARTED', 'SUSPENDED', 'COMPLETED', 'TERMINATED')),
  final integer not null,
  dataset text,
  agreement text,
  due real,
  created real not null,
  updated real not null,
  version integer not null,
  rest blob not null,
  unique (participant, pid)
) strict;
create unique index process_peer on process(participant, kind, peer, peer_pid) where peer_pid is not null;
create index process_newest on process(participant, kind, created, pid);
create index process_newest_of_state on process(participant, kind, state, created, pid);
create index process_newest_of_peer on process(participant, kind, peer, created, pid);
create index process_due on process(participant, due) where due is not null;
create index process_final on process(participant, updated) where final = 1;

-- The order of `id` is the order of acceptance; only the last row of a process can still be asked for.
create table inbox(
  id integer primary key,
  participant integer not null,
  pid text not null,
  move text not null,
  digest blob not null,
  body blob not null,
  status integer not null,
  answer blob not null,
  at real not null
) strict;
create index inbox_process on inbox(participant, pid);
create index inbox_age on inbox(participant, at);

create table outbox(
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
) strict;
create index outbox_dead on outbox(participant, created, id) where dead = 1;

-- Append only: nothing updates or deletes a row, so the numbers of a participant have no gaps and only grow.
create table evidence(
  participant integer not null,
  sequence integer not null,
  what text not null,
  kind text,
  pid text,
  peer text,
  state text,
  at real not null,
  move text,
  digest blob,
  detail blob,
  primary key (participant, sequence)
) strict, without rowid;
create index evidence_process on evidence(participant, pid, sequence);

create table agreement(
  participant integer not null,
  id text not null,
  peer text not null,
  dataset text not null,
  created real not null,
  rest blob not null,
  primary key (participant, id)
) strict;
create index agreement_newest on agreement(participant, created, id);
create index agreement_newest_of_peer on agreement(participant, peer, created, id);
create index agreement_newest_of_dataset on agreement(participant, dataset, peer, created, id);

create table dataset(
  participant integer not null,
  id text not null,
  document blob not null,
  version integer not null,
  rest blob not null,
  primary key (participant, id)
) strict;

-- Which dataset an offer is about; the offer itself stands in the dataset's row.
create table offer(
  participant integer not null,
  id text not null,
  dataset text not null,
  primary key (participant, id)
) strict, without rowid;
create index offer_dataset on offer(participant, dataset);

create table edr(
  participant integer not null,
  transfer text not null,
  rest blob not null,
  primary key (participant, transfer)
) strict;

create table pull(
  participant integer not null,
  id text not null,
  open integer not null,
  created real not null,
  version integer not null,
  rest blob not null,
  primary key (participant, id)
) strict;
create index pull_newest on pull(participant, created, id);
create index pull_open on pull(participant, created, id) where open = 1;

create table idempotent(
  participant integer not null,
  key text not null,
  digest blob not null,
  answer blob not null,
  created real not null,
  primary key (participant, key)
) strict;
create index idempotent_age on idempotent(participant, created);
