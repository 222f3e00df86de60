-- A record that grows over a contact's limits fails its own event, and no other.
SET search_path = contactsync, public;
BEGIN;
SELECT add_source('limits', 'canonical') > 0 AS added;
SELECT count(*) AS queued FROM inbox WHERE failed_at IS NULL;
CREATE FUNCTION pg_temp.tags(prefix text, n integer) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_build_object('last_name', prefix, 'tags', jsonb_agg(prefix || i)) FROM generate_series(1, n) i$$;
SELECT ingest('limits', 'big', pg_temp.tags('a', 6000), '2026-11-01') > 0 AS queued;
SELECT process();

-- the second list leaves 6000 tombstones beside 6000 new values
SELECT count(ingest('limits', id, p, '2026-11-02')) FROM (VALUES
	('before', '{"last_name": "Before"}'::jsonb), ('big', pg_temp.tags('b', 6000)), ('after', '{"last_name": "After"}')) v (id, p);
SELECT process();
SELECT source_id, kind, error_code, error FROM inbox WHERE source = 'limits' ORDER BY id;
SELECT c ->> 'last_name' AS name, jsonb_array_length(c -> 'tags') AS tags FROM (SELECT contact AS c FROM contacts) s WHERE c ->> 'last_name' IN ('a', 'b', 'Before', 'After') ORDER BY 1;

-- the record stays as it was, and goes on
SELECT ingest('limits', 'big', '{"title": "CTO"}', '2026-11-03', 'patch') > 0 AS queued;
SELECT process();
SELECT c ->> 'last_name' AS name, c ->> 'title' AS title, jsonb_array_length(c -> 'tags') AS tags FROM (SELECT contact AS c FROM contacts) s WHERE c ->> 'last_name' = 'a';
ROLLBACK;
