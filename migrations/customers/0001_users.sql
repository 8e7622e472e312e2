-- The write model's users and their accounts, kept in the append's own transaction: what is read
-- here is as new as the log. Ids are text: a caller may choose its own. An account is a user's
-- address, in parts or as one text.
CREATE TABLE users (
    id text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

CREATE TABLE accounts (
    user_id text COLLATE "C" PRIMARY KEY REFERENCES users (id),
    street text,
    city text,
    state text,
    zip text,
    address text,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CHECK (num_nulls(street, city, state, zip) = 4 OR num_nulls(street, city, state, zip) = 0),
    CHECK (num_nonnulls(street, address) = 1)
);
