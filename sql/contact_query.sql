-- Operators that search contacts or make one of two, and differences.
SET search_path = contactsync, public;
\pset null '(null)'

CREATE TEMP TABLE people (id integer, c contact);
INSERT INTO people VALUES
 (1, '{"first_name": "Ann", "last_name": "Lee", "title": "CTO", "emails": [{"address": "Ann@X.org", "type": "work", "primary": true}, "ann@y.org"],
       "phones": ["+1 650 253 0000", {"number": "+1 650 253 0001", "extension": "4"}, "555-0100"], "tags": ["VIP", "eu"],
       "addresses": [{"street": "1 Main St", "city": "Springfield"}], "metadata": {"plan": "gold", "n": 7, "o": {"a": 1, "b": [2]}}}'),
 (2, '{"first_name": "Ann", "emails": ["bob@x.org", "not an address"], "metadata": {"plan": "tin", "title": "x"}}'),
 (3, '{}'),
 -- says that there is no title, no tag and no address ann@x.org
 (4, '{"first_name": "Tom", "emails": ["tom@x.org"], "_provenance": {
	"first_name": {"source": "s", "as_of": "2024-01-01T00:00:00.000000Z", "changed_at": "2024-01-01T00:00:00.000000Z", "flags": []},
	"title": {"source": "s", "as_of": "infinity", "changed_at": "-infinity", "flags": ["tombstone"]},
	"tags": {"source": "s", "as_of": "infinity", "changed_at": "-infinity", "flags": ["tombstone"]},
	"emails:ann@x.org": {"source": "s", "as_of": "infinity", "changed_at": "-infinity", "flags": ["tombstone"]}}}'),
 (5, NULL);

-- ? asks for a field, not for a key of metadata; tombstones are no values
SELECT f, array_agg(id ORDER BY id) FILTER (WHERE c ? f) AS have, bool_and((c ? f) = (c -> f IS NOT NULL)) AS as_arrow
FROM people, unnest('{title,emails,phones,tags,metadata,plan,"",no such}'::text[]) f GROUP BY f ORDER BY f COLLATE "C";
SELECT id, c ? 'title' AS has_title, c ? NULL AS unknown FROM people WHERE id IN (1, 5) ORDER BY id;

-- @>: scalars and metadata by value, elements by what they identify
SELECT q, array_agg(id ORDER BY id) FILTER (WHERE c @> q::contact) AS found,
	array_agg(id ORDER BY id) FILTER (WHERE q::contact <@ c) AS commuted
FROM people, unnest(ARRAY[
	'{}', '{"first_name": "Ann"}', '{"first_name": "ann"}', '{"first_name": "Ann", "title": "CTO"}', '{"title": "x"}',
	'{"emails": ["ANN@X.ORG"]}', '{"emails": [{"address": "ann@x.org", "type": "home", "verified": true}]}', '{"emails": ["ann@x.org", "bob@x.org"]}',
	'{"emails": ["Not  an address"]}', '{"phones": ["0016502530000"]}', '{"phones": ["+1-650-253-0000"]}', '{"phones": ["+16502530001"]}',
	'{"phones": ["+16502530001 ext 4", "5550100"]}', '{"tags": ["vip"]}', '{"tags": ["vip", "us"]}', '{"addresses": [{"street": "1 MAIN st", "city": "Springfield"}]}',
	'{"addresses": [{"street": "1 Main St"}]}', '{"metadata": {"plan": "gold"}}', '{"metadata": {"n": "7"}}', '{"n": 7}', '{"o": {"b": [2], "a": 1}}', '{"o": {"a": 1}}']) q
GROUP BY q ORDER BY q COLLATE "C";
-- stamps and tombstones on the right are nothing either
SELECT a.c @> b.c AS contains, b.c <@ a.c AS contained FROM (SELECT '{"first_name": "Tom", "title": "t", "emails": ["ann@x.org", "tom@x.org"]}'::contact AS c) a, people b WHERE id = 4;
SELECT bool_and(c @> c) AS reflexive, count(*) FILTER (WHERE c @> NULL) AS by_null FROM people WHERE c IS NOT NULL;

-- && looks for keys as contact_keys gives them
SELECT k, array_agg(id ORDER BY id) FILTER (WHERE c && k::text[]) AS found
FROM people, unnest(ARRAY['{}', '{NULL}', '{email:ann@x.org}', '{email:Ann@X.org}', '{NULL,tel:+0,email:tom@x.org,email:ann@y.org,email:ann@y.org}', '{tel:+16502530000}',
	'{tel:+16502530001}', '{tel:+16502530001;ext=4}', '{tel:5550100}', '{email:not an address}', '{?title,email:,tel:,ann@x.org}', '{{email:bob@x.org},{tel:1}}']) k
GROUP BY k ORDER BY k COLLATE "C";
SELECT bool_and(c && contact_keys(c) = (contact_keys(c) <> '{}')) AS own_keys FROM people;

-- what is recognised depends on the key alone
SELECT e, contact_keys(jsonb_build_object('emails', jsonb_build_array(e))::contact)
FROM unnest('{a.b@c.de,"a b@c.de",@b.de,a@,A_B+c-d@E-F.De,a@b.de.}'::text[]) e;

-- the primary element, or the first
SELECT id, contact_primary(c, 'emails') AS email, contact_primary(c, 'phones') AS phone, contact_primary(c, 'tags') AS tag,
	contact_primary(c, 'addresses') AS address, contact_primary(c, 'title') AS title, contact_primary(c, 'no such') AS none FROM people ORDER BY id;

-- ||: the right wins, lists are united, metadata is merged
SELECT a.c || b.c FROM people a, people b WHERE a.id = 1 AND b.id = 2;
SELECT b.c || a.c FROM people a, people b WHERE a.id = 1 AND b.id = 2;
SELECT contact_identical(c || '{}', c) AS right_empty, contact_identical('{}' || c, c) AS left_empty, contact_identical(c || c, c) AS itself FROM people WHERE id IN (1, 2, 3) ORDER BY id;
SELECT c || NULL::contact AS nothing FROM people WHERE id = 1;
-- a list has one primary element, an element is taken whole, stamps stay with what is taken
SELECT '{"emails": [{"address": "a@x.org", "primary": true}, {"address": "B@x.org", "type": "work", "verified": true}]}'::contact || '{"emails": [{"address": "b@x.org", "primary": true}]}';
SELECT a || b FROM (SELECT '{"title": "t", "note": "n", "_provenance": {
	"title": {"source": "a", "as_of": "infinity", "changed_at": "-infinity", "flags": []}, "note": {"source": "a", "as_of": "infinity", "changed_at": "-infinity", "flags": []}}}'::contact AS a,
	'{"note": "m", "_provenance": {"note": {"source": "b", "as_of": "infinity", "changed_at": "2024-01-01T00:00:00.000000Z", "flags": ["enriched"]},
	"title": {"source": "b", "as_of": "infinity", "changed_at": "-infinity", "flags": ["tombstone"]}}}'::contact AS b) s;
-- more than a contact may have
SELECT a || b FROM (SELECT jsonb_build_object('tags', (SELECT jsonb_agg('a' || i) FROM generate_series(1, 6000) i))::contact AS a,
	jsonb_build_object('tags', (SELECT jsonb_agg('b' || i) FROM generate_series(1, 6000) i))::contact AS b) s;

-- without a field, without several
SELECT c - 'emails' - 'phones' - 'metadata' AS less FROM people WHERE id = 1;
SELECT c - '{emails,phones,metadata,plan,NULL,no such}'::text[] AS less FROM people WHERE id = 1;
SELECT c - '{emails,phones,metadata,plan,NULL,no such}' AS same_less FROM people WHERE id = 1;
SELECT c - '{emails' FROM people WHERE id = 1;
SELECT c - 'title' AS less FROM people WHERE id = 4;
SELECT contact_identical(c - 'birthday', c) AS same, c - '{}'::text[] = c AS same_too FROM people WHERE id = 1;

-- differences, as the audit log has them
SELECT contact_diff(a.c, b.c) FROM people a, people b WHERE a.id = 2 AND b.id = 4;
SELECT contact_diff(c, c || '{"title": "CEO", "tags": ["new"]}') FROM people WHERE id = 1;
SELECT contact_diff(c, c) AS nothing, contact_diff('{"title": "x"}', NULL) AS gone, contact_diff(NULL, '{"title": "x"}') AS new, contact_diff(NULL, NULL) AS neither FROM people WHERE id = 1;
SELECT contact_diff('{"title": "x"}', '{"title": "x", "_provenance": {"title": {"source": "s", "as_of": "infinity", "changed_at": "-infinity", "flags": []}}}') AS stamps_aside;

-- toasted values are read in slices, whatever stands before what is asked for
CREATE TEMP TABLE big (kind text, c contact);
ALTER TABLE big ALTER c SET STORAGE external;
INSERT INTO big SELECT 'external', jsonb_build_object('title', 'CTO', 'note', (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 2000) i), 'emails', jsonb_build_array('a@b.org'),
	'tags', (SELECT jsonb_agg('t' || i) FROM generate_series(1, 3000) i), 'metadata', '{"k": "v"}'::jsonb)::contact;
ALTER TABLE big ALTER c SET STORAGE extended;
INSERT INTO big SELECT 'extended', c || '{"suffix": "x"}' FROM big;
INSERT INTO big SELECT 'inline', jsonb_build_object('title', 'CTO', 'note', repeat('x', 50000), 'emails', jsonb_build_array('a@b.org'), 'metadata', '{"k": "v"}'::jsonb, 'tags', '["t7"]'::jsonb)::contact;
SELECT kind, c ->> 'title' AS title, length(c ->> 'note') AS note, contact_primary(c, 'emails') AS email, c -> 'metadata' AS metadata, contact_keys(c) AS keys, c ? 'tags' AS tags, c ? 'photo' AS photo,
	c @> '{"tags": ["t7"], "k": "v"}' AS contains, c && '{email:a@b.org}' AS overlaps FROM big ORDER BY kind;

-- a field as jsonb is what it is in the whole, in order and to the byte
SELECT id, bool_and(c -> k = v AND (c -> k)::text = v::text AND (c ->> k)::jsonb = v) AS same
FROM (SELECT id, c FROM people UNION ALL SELECT 6, '{"emails": [{"address": "a@b.org", "verified": false, "type": "x"}], "urls": ["http://a.org", {"url": "http://b.org", "type": "y"}],
	"phones": [{"number": "+16502530001", "extension": "4", "verified": true}], "s": "a\"b\\c\u0007", "n": -1.50, "i": -12, "z": 0, "m": 123456789012345678, "w": 1234567890123456789, "t": true, "o": {"b": [null, {}], "a": ""}, "l": [1, "x"]}'::contact) s,
	jsonb_each(c::jsonb) e (k, v) WHERE jsonb_typeof(v) <> 'string' GROUP BY id ORDER BY id;

-- subscripts read a field, and what is in it
SELECT id, c['title'] AS title, c['emails'][0]['address'] AS first, c['emails'][-1] AS last, c['metadata']['o']['b'] AS deep, c['no such'] AS none, c[NULL] AS unknown, c['tags'][NULL] AS unknown_too, c['title']['x'] AS scalar
FROM people ORDER BY id;
SELECT c['emails'][i]['address'] FROM people, generate_series(0, 2) i WHERE id = 1;
SELECT c['a':'b'] FROM people;
UPDATE people SET c['title'] = '"x"';

-- more stamps than a byte can name
WITH stamped AS MATERIALIZED (SELECT n, (SELECT jsonb_build_object('title', 'T', 'tags', jsonb_agg('t' || i), '_provenance', jsonb_object_agg('tags:t' || i,
	jsonb_build_object('source', 's' || i, 'as_of', 'infinity', 'changed_at', '-infinity', 'flags', '[]'::jsonb))) FROM generate_series(1, n) i)::contact AS c FROM unnest('{254,255,700}'::integer[]) n)
SELECT n, (SELECT count(DISTINCT v -> 'source') FROM jsonb_each(contact_provenance(c)) e (k, v)) AS sources, c ->> 'title' AS title, c -> 'tags' = c::jsonb -> 'tags' AS tags, contact_identical(c, c::text::contact) AS same
FROM stamped ORDER BY n;
