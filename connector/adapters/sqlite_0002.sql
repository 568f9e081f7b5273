-- What agreements have used up, and what of it is reserved: `open` says whether anything is. `rest` is JSON.

create table usage(
  participant integer not null,
  agreement text not null,
  open integer not null,
  version integer not null,
  rest blob not null,
  primary key (participant, agreement)
) strict;
create index usage_open on usage(participant) where open = 1;
