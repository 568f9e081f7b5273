-- To check `in` a list of more than two values, SQLite makes a table of the list for each row that is written: a third of what writing a
-- process cost. The same check, written out, makes none. Nothing else is different.

create table process_checked(
  id integer primary key,
  participant integer not null,
  pid text not null,
  kind text not null check (kind in ('negotiation', 'transfer')),
  role text not null check (role in ('consumer', 'provider')),
  peer text not null,
  peer_pid text,
  state text not null check (state = 'INITIAL' or state = 'REQUESTED' or state = 'OFFERED' or state = 'ACCEPTED' or state = 'AGREED'
    or state = 'VERIFIED' or state = 'FINALIZED' or state = 'STARTED' or state = 'SUSPENDED' or state = 'COMPLETED'
    or state = 'TERMINATED'),
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
insert into process_checked select * from process order by id;
drop table process;
alter table process_checked rename to process;
create unique index process_peer on process(participant, kind, peer, peer_pid) where peer_pid is not null;
create index process_newest on process(participant, kind, created, pid);
create index process_newest_of_state on process(participant, kind, state, created, pid);
create index process_newest_of_peer on process(participant, kind, peer, created, pid);
create index process_due on process(participant, due) where due is not null;
create index process_final on process(participant, updated) where final = 1;
