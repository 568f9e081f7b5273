-- The accounts of metered transfers with their receipts, and the ledger. Signed objects are text, hashes raw bytes, `rest` is JSON.

create table metered(
  participant integer not null,
  transfer text not null,
  agreement text not null,
  version integer not null,
  rest blob not null,
  primary key (participant, transfer)
) strict;
create index metered_agreement on metered(participant, agreement, transfer);

create table receipt(
  participant integer not null,
  transfer text not null,
  sequence integer not null,
  digest blob not null,
  receipt text not null,
  ack text,
  at real not null,
  primary key (participant, transfer, sequence, digest)
) strict;

-- A fact's entry in the ledger is computed from its row (`records_ledger.entry_of`), or is `entry` if that is a signed object; `leaf` is
-- its hash. `hidden` takes the place of `detail` and `salt` when these are erased: nothing else of a row ever changes. Rows of before have
-- no leaf: they are older than the log.
alter table evidence add column entry text;
alter table evidence add column leaf blob;
alter table evidence add column salt blob;
alter table evidence add column hidden blob;

create table log(
  participant integer not null,
  origin text not null,
  number integer not null,
  version integer not null,
  rest blob not null,
  primary key (participant, origin)
) strict;
create unique index log_number on log(participant, number);

-- Entries from index `first` on are the `count` evidence rows from `sequence` on. Log 0 is none: the rows from before the ledger.
create table numbered(
  participant integer not null,
  log integer not null,
  first integer not null,
  sequence integer not null,
  count integer not null,
  primary key (participant, log, first)
) strict, without rowid;
create unique index numbered_sequence on numbered(participant, sequence);
insert into numbered(participant, log, first, sequence, count)
  select number, 0, 0, 1, newest
  from (select number, (select max(sequence) from evidence where participant = number) as newest from participant)
  where newest is not null;

-- Full subtrees of 256, 256^2, ... leaves; those between are computed from them.
create table subtree(
  participant integer not null,
  log integer not null,
  level integer not null,
  place integer not null,
  hash blob not null,
  primary key (participant, log, level, place)
) strict, without rowid;

-- `id` is "<peer> <origin>".
create table witnessed(
  participant integer not null,
  id text not null,
  version integer not null,
  rest blob not null,
  primary key (participant, id)
) strict;
