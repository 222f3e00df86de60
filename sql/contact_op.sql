-- Accessors, comparison, operator classes, keys and patches.
SET search_path = contactsync, public;

CREATE TEMP TABLE people (id integer, c contact);
INSERT INTO people VALUES
 (1, '{"first_name": "Ann", "last_name": "Lee", "title": "CTO", "emails": ["Ann@X.org", "ann@y.org"], "phones": ["+1 650 253 0000", {"number": "+1 650 253 0001", "extension": "4"}, "555-0100"]}'),
 (2, '{"first_name": "Bob", "metadata": {"a": {"b": 1, "c": [2]}, "k": null}}'),
 (3, '{}');

SELECT id, c -> 'title' AS j, c ->> 'title' AS t, c -> 'emails' AS emails, c ->> 'tags' AS tags, c ->> 'no such' AS none
FROM people ORDER BY id;
SELECT id, contact_keys(c) FROM people ORDER BY id;
SELECT c::jsonb FROM people ORDER BY id;

-- comparison looks at content, not at stamps
WITH v AS (SELECT '{"title": "x"}'::contact AS a,
	'{"title": "x", "_provenance": {"title": {"source": "s", "as_of": "infinity", "changed_at": "-infinity", "flags": []}}}'::contact AS b)
SELECT a = b AS equal, a <> b AS different, a IS DISTINCT FROM b AS is_distinct, contact_identical(a, b) AS identical,
	contact_hash(a) = contact_hash(b) AS same_hash, contact_hash_extended(a, 42) = contact_hash_extended(b, 42) AS same_seeded
FROM v;
SELECT id FROM people ORDER BY c, id;
SELECT opcname, amname, amvalidate(o.oid) FROM pg_opclass o JOIN pg_am a ON a.oid = opcmethod
WHERE opcnamespace = 'contactsync'::regnamespace ORDER BY amname, opcname;

-- index, sort and hash agree with a sequential scan
CREATE TEMP TABLE many AS
	SELECT i, jsonb_build_object('first_name', 'n' || i % 50, 'tags', jsonb_build_array('t' || i % 7))::contact AS c
	FROM generate_series(1, 2000) i;
CREATE INDEX many_btree ON many (c);
CREATE INDEX many_hash ON many USING hash (c);
ANALYZE many;
SELECT count(*) FROM (SELECT DISTINCT c FROM many) s;
SET enable_seqscan = off; SET enable_bitmapscan = off;
SELECT count(*) FROM many WHERE c = '{"first_name": "n3", "tags": ["t3"]}';
EXPLAIN (COSTS OFF) SELECT * FROM many WHERE c < '{"first_name": "n1"}';
SELECT count(*) FROM many WHERE c < '{"first_name": "n1"}';
SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_seqscan = on;
SELECT count(*) FROM many WHERE c < '{"first_name": "n1"}';
SELECT count(*) FROM many a JOIN many b USING (c);
SET enable_hashjoin = off; SET enable_nestloop = off;
SELECT count(*) FROM many a JOIN many b USING (c);
RESET enable_seqscan; RESET enable_bitmapscan; RESET enable_indexscan; RESET enable_indexonlyscan;
RESET enable_hashjoin; RESET enable_nestloop;

-- RFC 7396
SELECT contact_patch(c, '{"title": null, "emails": ["z@z.org"], "note": "n"}') FROM people WHERE id = 1;
SELECT contact_patch(c, '{"metadata": {"a": {"b": null, "d": {"e": null, "f": 1}}, "new": "v"}, "unknown": 5}') FROM people WHERE id = 2;
SELECT contact_patch(c, '{"metadata": null}') FROM people WHERE id = 2;
SELECT contact_patch(c, '[1]') FROM people WHERE id = 2;
SELECT contact_patch(c, '{"title": 7}') FROM people WHERE id = 2;
-- what a patch does not change keeps its stamp
SELECT contact_patch('{"title": "x", "note": "n", "_provenance": {
	"title": {"source": "s", "as_of": "infinity", "changed_at": "-infinity", "flags": []},
	"note": {"source": "s", "as_of": "infinity", "changed_at": "-infinity", "flags": []}}}'::contact, '{"note": "m"}');
