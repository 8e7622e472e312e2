-- The write model's accounts, kept in the append's own transaction: what is read here is as new as
-- the log. Ids are text: a caller may choose its own. A closed account stays. Room is left on the
-- pages, so that a balance that changes often is replaced on its own page; no index has to follow.
CREATE TABLE accounts (
    account_id text COLLATE "C" PRIMARY KEY,
    holder_name text NOT NULL,
    user_id text COLLATE "C",
    currency text COLLATE "C" NOT NULL,
    balance decimal(18,2) NOT NULL,
    status varchar(20) NOT NULL,
    version bigint NOT NULL
) WITH (fillfactor = 70);
