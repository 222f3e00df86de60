-- Contacts as values, made into one: resolve(), merge(), and the state that merge() keeps.
SET search_path = contactsync, public;
SET TimeZone = 'UTC';

CREATE FUNCTION c(source text, day integer, value jsonb, flags text DEFAULT '') RETURNS contact LANGUAGE sql IMMUTABLE AS $$
	SELECT (value || jsonb_build_object('_provenance', (SELECT jsonb_object_agg(k, jsonb_build_object('source', source,
			'as_of', '2026-01-01'::timestamptz + day * interval '1 day', 'changed_at', '2026-01-01'::timestamptz + day * interval '1 day',
			'flags', string_to_array(flags, ',')))
		FROM (SELECT f AS k FROM jsonb_object_keys(value) f WHERE f NOT IN ('tags', 'phones', 'emails')
			UNION ALL SELECT 'tags:' || t FROM jsonb_array_elements_text(value -> 'tags') t
			UNION ALL SELECT 'emails:' || (e ->> 'address') FROM jsonb_array_elements(value -> 'emails') e) k)))::contact
$$;

CREATE TABLE people (g integer, contact contact);
INSERT INTO people VALUES
	(1, c('crm', 1, '{"last_name": "Lee", "company": "Acme", "title": "CTO", "note": "c", "tags": ["a"]}')),
	(1, c('mkt', 2, '{"company": "Acme", "note": "m", "emails": [{"address": "a@x.org", "primary": true}]}')),
	(1, c('phone', 3, '{"last_name": "Lea", "note": "p", "tags": ["b"], "emails": [{"address": "a@x.org", "verified": true}, {"address": "b@x.org"}]}')),
	(1, NULL),
	(2, '{"note": "no stamps"}'), (2, c('crm', 1, '{"note": "stamped"}')),
	(3, '{"note": "b"}'), (3, '{"note": "a"}'), (3, '{"note": "b"}'),
	(4, NULL);

-- by default the latest wins, and lists are united
SELECT g, merge(contact, '{}') FROM people GROUP BY g ORDER BY g;
-- what a rule prefers
SELECT p, merge(contact, jsonb_build_object('note', p, 'name', p, 'emails', p)::merge_policy)::jsonb - 'emails' AS merged
FROM people, unnest('{last_write_wins,oldest,most_frequent,most_complete,verified_first}'::text[]) p WHERE g IN (1, 3) GROUP BY g, p ORDER BY g, p;
SELECT resolve(array_agg(contact), '{"note": {"rule": "source_priority", "sources": ["mkt", "crm"]}, "emails": {"rule": "union", "sources": ["mkt"], "only": true}}')::jsonb FROM people WHERE g = 1;
-- a flag of the stamp verifies a single value
SELECT resolve(ARRAY[c('crm', 1, '{"note": "checked"}', 'verified'), c('phone', 9, '{"note": "later"}')], '{"note": "verified_first"}');
-- what we wrote there ourselves does not vote
SELECT resolve(ARRAY[c('crm', 1, '{"note": "x"}'), c('mkt', 2, '{"note": "y"}'), c('phone', 1, '{"note": "x"}', 'derived')], '{"note": "most_frequent"}') -> 'note' AS note;

-- what one contact says it says again, to the byte; one with several sources is a claim of each
SELECT contact_identical(resolve(ARRAY[contact], '{}'), contact) FROM people WHERE contact IS NOT NULL AND contact -> 'emails' IS NULL;
SELECT contact_identical(resolve(ARRAY[m], '{}'), m) AS again, contact_identical(resolve(ARRAY[m, m], '{}'), m) AS twice
FROM (SELECT merge(contact, '{}') AS m FROM people WHERE g = 1) s;
SELECT resolve(ARRAY[m, c('crm', 5, '{"note": "late"}')], '{"note": "most_frequent"}') -> 'note' AS note
FROM (SELECT merge(contact, '{}') AS m FROM people WHERE g = 1) s;

-- nothing
SELECT merge(contact, '{}') IS NULL AS none FROM people WHERE false;
SELECT resolve('{}', '{}') IS NULL AS empty, resolve(ARRAY[NULL::contact], '{}') IS NULL AS nulls, resolve(ARRAY['{}'::contact], '{}') AS blank;

-- the state is a value like any other
SELECT merge_transition(merge_transition(NULL, '{"note": "a\nb"}', '{"note": "oldest"}'), NULL, NULL) AS state;
CREATE TABLE states AS
	SELECT merge_transition(merge_transition(NULL, a.contact, '{"job": "most_frequent"}'), b.contact, '{"job": "most_frequent"}') AS state
	FROM people a, people b WHERE a.contact IS NOT NULL AND b.contact IS NOT NULL;
SELECT count(*), bool_and(state::text = state::text::merge_state::text) AS text_lossless,
	bool_and(contact_identical(merge_final(state), merge_final(state::text::merge_state))) AS same FROM states;
CREATE TABLE copies (state merge_state);
\copy states to 'results/merge_states.bin' (format binary)
\copy copies from 'results/merge_states.bin' (format binary)
SELECT count(*) FROM (SELECT state::text FROM states EXCEPT ALL SELECT state::text FROM copies) d;
-- what was given is not changed by what is added to it
SELECT bool_and(before = state::text) FROM (SELECT state, state::text AS before, merge_combine(state, state) AS more,
	merge_transition(state, '{"note": "more"}', '{"job": "most_frequent"}') AS added FROM states OFFSET 0) s WHERE more IS NOT NULL AND added IS NOT NULL;
SELECT merge_combine(NULL, NULL) IS NULL AS none, merge_combine(state, NULL)::text = state::text AS left, merge_combine(NULL, state)::text = state::text AS right
FROM states LIMIT 1;
-- as a window
SELECT g, merge(contact, '{"note": "oldest"}') OVER (ORDER BY g DESC, contact) -> 'note' AS note FROM people ORDER BY g DESC, contact;

-- in parallel
CREATE TABLE many AS SELECT i % 50 AS g, c((ARRAY['crm', 'mkt', 'phone', 'tab'])[1 + i % 4], i * 7 % 30,
	jsonb_build_object('note', 'n' || i % 3, 'nickname', 'x' || i % 5, 'tags', ARRAY['t' || i % 6, 't' || i % 11], 'company', 'c' || i % 2, 'title', 't' || i % 7)) AS contact
FROM generate_series(1, 4000) i;
ANALYZE many;
CREATE TABLE alone AS SELECT g, merge(contact, '{"note": "most_frequent", "job": "most_complete", "nickname": "oldest"}') AS m FROM many GROUP BY g;
SET min_parallel_table_scan_size = 0;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET max_parallel_workers_per_gather = 2;
EXPLAIN (COSTS OFF) SELECT g, merge(contact, '{"note": "most_frequent", "job": "most_complete", "nickname": "oldest"}') AS m FROM many GROUP BY g;
CREATE TABLE together AS SELECT g, merge(contact, '{"note": "most_frequent", "job": "most_complete", "nickname": "oldest"}') AS m FROM many GROUP BY g;
SELECT count(*), bool_and(contact_identical(a.m, b.m)) FROM alone a JOIN together b USING (g);

-- faults
\set VERBOSITY terse
SELECT merge(contact, p::merge_policy) FROM people, unnest('{"{}","{\"note\": \"oldest\"}"}'::text[]) p WHERE g = 1;
\echo :LAST_ERROR_SQLSTATE
SELECT merge(contact, NULL) FROM people WHERE g = 1;
\echo :LAST_ERROR_SQLSTATE
SELECT '{}'::merge_state;
SELECT E'{}\n{"emails": 1}'::merge_state;
SELECT E'{"shoe": "oldest"}\n{}'::merge_state;
DROP TABLE people, states, copies, many, alone, together;
DROP FUNCTION c;
