-- Files of contacts, loaded by SQL: what comes in, what is wrong with it, who is absent.
\set VERBOSITY terse
SET search_path = contactsync, public;
BEGIN;
SELECT add_source('book', 'canonical') IS NOT NULL AS added;

-- ---- CSV: columns by their names, records by their first key ----
SELECT load_file('book', convert_to(E'First Name,Last Name,E-mail Address,Badge\nAnn,Lee,ann@x.org,7\nBo,Ng,bo@x.org,\nCy,Ito,,9\n', 'UTF8'), "full" => true) AS run \gset
SELECT state, kind, cause, items, certified, error FROM runs WHERE id = :run;
SELECT process();
SELECT source_id, alive, state::jsonb - '_provenance' AS state FROM records WHERE source = 'book' ORDER BY source_id COLLATE "C";
-- the same file again is the same run; a file without a column says nothing of it
SELECT load_file('book', convert_to(E'First Name,Last Name,E-mail Address,Badge\nAnn,Lee,ann@x.org,7\nBo,Ng,bo@x.org,\nCy,Ito,,9\n', 'UTF8'), "full" => true) = :run AS same;
SELECT load_file('book', convert_to(E'E-mail Address;Mobile Phone\nann@x.org;+44 20 7946 0001\n', 'UTF8')) > :run AS another, process();
SELECT state::jsonb - '_provenance' AS state FROM records WHERE source_id = 'email:ann@x.org';
-- two with one address are two, each time
SELECT load_file('book', convert_to(E'Name,Email\nDi Fox,fox@x.org\nEd Fox,fox@x.org\n', 'UTF8')) > :run AS another, process();
SELECT source_id, state ->> 'first_name' AS first_name FROM records WHERE source_id LIKE 'email:fox%' ORDER BY 1;

-- ---- who is absent: from two full files in a row, and not from one, nor from one that was cut off ----
SELECT add_source('crm', 'canonical') IS NOT NULL AS added;
CREATE FUNCTION pg_temp.export(people integer[]) RETURNS bytea LANGUAGE sql AS $$
	SELECT convert_to((SELECT jsonb_agg(jsonb_build_object('id', n, 'first_name', 'P' || n)) FROM unnest(people) n)::text, 'UTF8') $$;
CREATE FUNCTION pg_temp.load(people integer[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	loaded bigint := contactsync.load_file('crm', pg_temp.export(people), "full" => true, version => clock_timestamp());
BEGIN
	PERFORM contactsync.process();
	RETURN (SELECT concat_ws(' ', r.state, CASE WHEN r.certified THEN 'certified' END, 'missed ' || r.missed, 'held ' || r.held_deletes) || ': '
		|| (SELECT string_agg(c.source_id, ',' ORDER BY c.source_id::integer) FROM contactsync.records c WHERE c.source = 'crm' AND c.alive)
		FROM contactsync.runs r WHERE r.id = loaded);
END $$;
SELECT pg_temp.load('{1,2,3,4}') AS all_are_here;
SELECT pg_temp.load('{1,2,3}') AS absent_once;
SELECT pg_temp.load('{1,2,3,5}') AS absent_twice;
SELECT pg_temp.load('{1,2,3}') AS absent_once, pg_temp.load('{1,2,3,5}') AS here_again;
SELECT pg_temp.load((SELECT array_agg(n) FROM generate_series(1, 40) n)) IS NOT NULL AS many;
SELECT pg_temp.load('{1}') AS nearly_empty_once;
SELECT pg_temp.load('{2}') AS held_at_the_second;
-- lines that end in the middle, nothing at all, and items that are nobody's prove nothing
SELECT add_source('cards', 'canonical') IS NOT NULL AS added;
CREATE FUNCTION pg_temp.card(id text, first text, more text DEFAULT '') RETURNS text LANGUAGE sql AS $$
	SELECT E'BEGIN:VCARD\r\nVERSION:3.0\r\nUID:' || id || E'\r\nN:Doe;' || first || E';;;\r\nFN:' || first || E' Doe\r\n' || more || E'END:VCARD\r\n' $$;
SELECT load_file('cards', convert_to(pg_temp.card('a', 'Ann', E'X-SHOE;TYPE=left:43\r\n') || pg_temp.card('b', 'Bo'), 'UTF8'), "full" => true) IS NOT NULL AS loaded, process();
SELECT load_file('cards', convert_to(pg_temp.card('a', 'Ann') || left(pg_temp.card('b', 'Bo'), 60), 'UTF8'), "full" => true) IS NOT NULL AS loaded, process();
SELECT load_file('cards', '', 'vcard', true) IS NOT NULL AS loaded, process();
SELECT load_file('cards', E'\n \n', "full" => true) IS NOT NULL AS loaded, process();
SELECT load_file('cards', '{"first_name": "X"}', 'json', true, key => '$.no') IS NOT NULL AS loaded, process();
SELECT load_file('cards', E'First Name,Last Name,Title\nAnn,Doe,CTO\nBo,D', "full" => true) IS NOT NULL AS loaded, process();
SELECT cursor_after ->> 'format' AS format, state, certified, items, error FROM runs WHERE source = 'cards' ORDER BY id;
SELECT source_id, alive, state::jsonb - '_provenance' AS state FROM records WHERE source = 'cards' ORDER BY 1;
SELECT source_id, error FROM inbox WHERE source = 'cards' ORDER BY id;
-- a card is kept as it stands, so that it can be read anew
SELECT payload FROM observations o JOIN records r ON r.id = o.record_id WHERE r.source = 'cards' AND r.source_id = 'a' ORDER BY o.id LIMIT 1;

-- ---- what is wrong with an item stays with it ----
SELECT add_source('lines', 'canonical') IS NOT NULL AS added;
SELECT load_file('lines', convert_to(E'{"id": 1, "first_name": "One"}\n{"id": 2, "first_name": {"a": 1}}\n{"id": 3, \n{"id": 1, "first_name": "Uno"}\n{"id": "x\\u0000", "a": 1}\n', 'UTF8'), "full" => true) AS run \gset
SELECT process();
SELECT state, items, certified, error FROM runs WHERE id = :run;
SELECT source_id, payload, error_code, error FROM inbox WHERE source = 'lines' ORDER BY id;
SELECT source_id, state::jsonb - '_provenance' AS state FROM records WHERE source = 'lines' ORDER BY 1;

-- ---- a mapping, ids by a column, versions and deletes of the items ----
SELECT add_connector('erp', '{"driver": "canonical", "misses": 1, "item": {"id": "$.no", "version": "$.at", "deleted": "$.gone"}, "map": {"last_name": "$.name", "metadata": {"$rest": {"prefix": "erp_", "except": ["no", "name", "at", "gone"]}}}}');
SELECT add_source('erp', 'erp') IS NOT NULL AS added;
SELECT load_file('erp', convert_to('[{"no": 1, "name": "A", "at": "2026-01-01T00:00:00Z"}, {"no": 2, "name": "B", "at": "2026-01-02T00:00:00Z"}, {"no": 3, "at": "soon"}]', 'UTF8')) IS NOT NULL AS loaded, process();
SELECT load_file('erp', convert_to('[{"no": 1, "name": "old", "at": "2025-01-01T00:00:00Z"}, {"no": 2, "gone": true, "at": "2026-01-03T00:00:00Z"}]', 'UTF8')) IS NOT NULL AS loaded, process();
SELECT load_file('erp', convert_to(E'No,Name,shoe\n7,C,43\n', 'UTF8'), key => 'no') IS NOT NULL AS loaded, process();
SELECT load_file('erp', convert_to(E'{"no": 7, "name": "Mapped", "kind": "x"}', 'UTF8')) IS NOT NULL AS loaded, process();
SELECT source_id, alive, state::jsonb - '_provenance' AS state FROM records WHERE source = 'erp' ORDER BY 1;
SELECT source_id, error FROM inbox WHERE source = 'erp';

-- ---- an older file loaded late changes nothing that is newer ----
SELECT add_source('late', 'canonical') IS NOT NULL AS added;
SELECT load_file('late', '[{"id": 1, "title": "new"}]', version => '2026-02-01Z') IS NOT NULL AS loaded, process();
SELECT load_file('late', '[{"id": 1, "title": "old"}]', version => '2026-01-01Z') IS NOT NULL AS loaded, process();
SELECT state ->> 'title' AS title FROM records WHERE source = 'late';
SELECT max(id) AS run FROM runs WHERE source = 'late' \gset
SELECT load_file('late', '[{"id": 1, "title": "old"}]', version => '2026-01-01Z') = :run AS same;

-- UTF-16
SELECT load_file('late', '\xfffe4e0061006d0065002c0045006d00610069006c000a00c900610020004c0065002c0065004000780078002e006f00720067000a00') IS NOT NULL AS loaded, process();
SELECT state::jsonb - '_provenance' AS state FROM records WHERE source_id = 'email:e@xx.org';
ROLLBACK;

-- faults of the call
BEGIN;
SELECT add_source('book', 'canonical') IS NOT NULL AS added;
SAVEPOINT s;
SELECT load_file('nosuch', ''); ROLLBACK TO s;
SELECT load_file('book', NULL); ROLLBACK TO s;
SELECT load_file('book', 'x', 'xlsx'); ROLLBACK TO s;
SELECT load_file('book', E'a,b\n1,2', key => 'c'); ROLLBACK TO s;
SELECT load_file('book', '[1', 'json'); ROLLBACK TO s;
SELECT load_file('book', '[]', key => '$.['); ROLLBACK TO s;
SELECT load_file('book', 'BEGIN:VCARD', key => 'x'); ROLLBACK TO s;
SELECT add_source('net', 'scim', '{"url": "https://idp.example"}') IS NOT NULL AS added;
SELECT load_file('net', ''); ROLLBACK TO s;
SELECT load_file('book', '[{"id": 1}]', "full" => true) IS NOT NULL AS loaded;
SELECT load_file('book', '[{"id": 2}]', "full" => true); ROLLBACK TO s;
SET ROLE contactsync_analyst;
SELECT load_file('book', '[]');
ROLLBACK;
