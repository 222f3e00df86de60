-- The stored form at its borders: short and long values, narrow and wide ones, times of every unit.
SET search_path = contactsync, public;

-- a scalar of up to 126 bytes is read in place, a longer one is copied
SELECT n, c ->> 'note' = repeat('n', n) AS note, c ->> 'title' = 'T' AS title, length(c ->> 'note') AS length,
	md5(c ->> 'note') = md5(repeat('n', n)) AS md5, (c ->> 'note') || '.' = repeat('n', n) || '.' AS concatenated, contact_identical(c, c::text::contact) AS same
FROM unnest(ARRAY[1, 125, 126, 127, 128, 20000]) n, jsonb_build_object('note', repeat('n', n), 'title', 'T', 'company', repeat('n', n)) j, CAST(j AS contact) c ORDER BY n;
CREATE TABLE layout (id integer, c contact);
ALTER TABLE layout ALTER COLUMN c SET STORAGE EXTERNAL;
INSERT INTO layout SELECT n, jsonb_build_object('first_name', 'F' || n, 'note', repeat('n', n), 'metadata', jsonb_build_object('m', repeat('m', 3 * n)))::contact FROM unnest(ARRAY[1, 126, 127, 5000]) n;
-- what was read in place lives on its own in tables, sorts and arrays
CREATE TABLE layout_text AS SELECT id, c ->> 'first_name' AS first_name, c ->> 'note' AS note FROM layout;
SELECT id, first_name, length(note) AS length FROM layout_text ORDER BY note COLLATE "C", id;
SELECT array_agg(c ->> 'first_name' ORDER BY c ->> 'first_name') AS names, max(c ->> 'first_name') AS max, count(DISTINCT c ->> 'note') AS notes FROM layout;
CREATE INDEX layout_first ON layout ((c ->> 'first_name'));
SET enable_seqscan = off;
SELECT id FROM layout WHERE c ->> 'first_name' = 'F127';
RESET enable_seqscan;

-- 255 items and 64 kB are the last of the narrow form; every field is found in either
WITH t AS (SELECT n, (jsonb_build_object('first_name', 'F', 'title', 'T', 'emails', '["a@x.org", {"address": "b@x.org", "primary": true}]'::jsonb, 'phones', '["+16502530000"]'::jsonb,
		'urls', '["https://x.org"]'::jsonb, 'metadata', '{"m": 1}'::jsonb, 'tags', (SELECT jsonb_agg('t' || i) FROM generate_series(1, n) i)))::contact AS c
	FROM unnest(ARRAY[1, 247, 248, 249, 300]) n)
SELECT n, c ->> 'title' AS title, contact_primary(c, 'emails') AS mail, contact_keys(c) AS keys, c ->> 'urls' AS urls, c -> 'metadata' ->> 'm' AS m, jsonb_array_length(c -> 'tags') AS tags,
	c ? 'addresses' AS addresses, c @> '{"tags": ["t1"], "metadata": {"m": 1}}'::contact AS contains, contact_identical(c, c::text::contact) AS same FROM t ORDER BY n;
WITH t AS (SELECT n, jsonb_build_object('note', repeat('n', n), 'urls', '["https://x.org"]'::jsonb)::contact AS c FROM unnest(ARRAY[65521, 65522, 65523, 65524]) n)
SELECT n, pg_column_size(c) - n AS overhead, length(c ->> 'note') AS note, c ->> 'urls' AS urls, contact_identical(c, c::text::contact) AS same FROM t ORDER BY n;

-- stamps: 254 of them are the last that the narrow form can name; times come back to the microsecond
WITH t AS (SELECT n, (SELECT jsonb_build_object('tags', jsonb_agg('t' || i), '_provenance', jsonb_object_agg('tags:t' || i, jsonb_build_object('source', 's' || i % 3,
		'as_of', to_char(timestamp '2026-01-01' + i * interval '1.000001 s', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), 'changed_at', '-infinity', 'flags', '["estimate", "derived"]'::jsonb)))
		FROM generate_series(1, n) i)::contact AS c FROM unnest(ARRAY[200, 250, 254, 255]) n)
SELECT n, contact_identical(c, c::text::contact) AS same, (SELECT count(DISTINCT value) FROM jsonb_each(contact_provenance(c))) AS stamps,
	contact_provenance(c) #>> '{tags:t7,as_of}' AS as_of FROM t ORDER BY n;
WITH times (n, as_of, changed_at) AS (VALUES (1, '2026-05-01T10:00:00.000000Z', '2026-05-01T10:00:00.000000Z'), (2, '2026-05-01T10:00:00.250000Z', '2026-05-01T10:00:00.000001Z'),
	(3, '294276-12-31T23:59:59.999999Z', '0001-01-01T00:00:00.000000Z'), (4, 'infinity', '1999-12-31T23:59:59.999000Z'), (5, '-infinity', 'infinity'), (6, '0001-01-01T00:00:00.000000Z', '294276-12-31T23:59:59.999999Z')),
t AS (SELECT (jsonb_build_object('tags', jsonb_agg('t' || n)) || jsonb_build_object('_provenance', jsonb_object_agg('tags:t' || n, jsonb_build_object('source', 's', 'as_of', as_of, 'changed_at', changed_at, 'flags', '[]'::jsonb))))::contact AS c FROM times)
SELECT n, contact_provenance(c) #>> ARRAY['tags:t' || n, 'as_of'] = as_of AND contact_provenance(c) #>> ARRAY['tags:t' || n, 'changed_at'] = changed_at AS kept, contact_identical(c, c::text::contact) AS same FROM t, times ORDER BY n;

-- usual types are stored as numbers, others as they are
SELECT length(t) AS length,
	(jsonb_build_object('emails', jsonb_build_array(jsonb_build_object('address', 'a@x.org', 'type', t)))::contact -> 'emails') #>> '{0,type}' = t AS kept
FROM unnest(ARRAY['work', 'homes', 'profile', 'x', repeat('y', 130)]) t;
DROP TABLE layout, layout_text;
-- a day that no calendar has is no time of a stamp
SELECT '{"title": "x", "_provenance": {"title": {"source": "s", "as_of": "2024-02-29T00:00:00.000000Z", "changed_at": "2024-02-29T00:00:00.000000Z", "flags": []}}}'::contact IS NOT NULL AS leap_day;
SELECT '{"title": "x", "_provenance": {"title": {"source": "s", "as_of": "2026-02-29T00:00:00.000000Z", "changed_at": "2026-02-28T00:00:00.000000Z", "flags": []}}}'::contact;
