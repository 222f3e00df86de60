-- What a write to each provider would be, and that what is written reads back as it was.
\set VERBOSITY terse
\pset format unaligned
\pset tuples_only on
SET search_path = contactsync, public;

CREATE TABLE person AS SELECT '{"first_name": "Zoë", "middle_name": "Q", "last_name": "Ng", "prefix": "Dr", "suffix": "Jr", "nickname": "Zo", "company": "Acme", "department": "R&D", "title": "CTO", "birthday": "1990-02-03",
	"note": "a note", "photo": "https://x.org/z.jpg", "emails": [{"address": "zoe@x.org", "type": "work", "primary": true}, {"address": "a@home.example", "type": "home"}],
	"phones": [{"number": "+44 20 7946 0001", "type": "work"}, {"number": "+44 7400 000002", "type": "mobile"}, {"number": "+44 20 7946 0003", "type": "home fax"}],
	"addresses": [{"street": "1 High St", "city": "Leeds", "region": "WY", "postal_code": "LS1", "country": "UK", "type": "work"}, {"city": "York", "type": "home"}],
	"urls": [{"url": "https://z.example", "type": "homepage"}], "tags": ["vip"], "metadata": {"k": "v"}}'::contact AS c;

-- ---- whole requests ----
\x on
SELECT method, url, headers, jsonb_pretty(body::jsonb) AS body, written, lost FROM person, render_write('google', 'update', c || '{"birthday": "--02-03"}'::jsonb::contact,
	'{"resourceName": "people/c1", "etag": "%e1", "metadata": {"sources": [{"type": "PROFILE", "etag": "#p"}, {"type": "CONTACT", "id": "1", "etag": "#c"}]}, "names": [{"givenName": "Zoë", "middleName": "Q", "familyName": "Old", "honorificPrefix": "Dr", "honorificSuffix": "Jr"}]}',
	'people/c1', '{name,birthday,phones}');
SELECT method, url, headers, body, written, lost FROM person, render_write('graph', 'update', c, '{"id": "A=/1", "@odata.etag": "W/\"e\"", "displayName": "Shown", "givenName": "Zoë", "surname": "Ng"}', 'A=/1', '{first_name,last_name,phones,tags}');
SELECT method, url, headers, body, written, lost FROM person, render_write('hubspot', 'update', '{"first_name": "Zoë"}', '{"id": "7", "updatedAt": "2026-01-01T00:00:00Z", "properties": {"firstname": "Zoë", "lastname": "Ng", "email": "z@x.org"}}', '7');
SELECT method, url, headers, body, written, lost FROM person, render_write('salesforce', 'update', c, '{"Id": "003", "SystemModstamp": "2026-01-02T03:04:05.000+0000"}', '003', '{personal,company}', NULL, 'https://my.example/');
SELECT method, url, headers, body, written, lost FROM person, render_write('scim', 'update', c, '{"id": "u 1", "meta": {"version": "W/\"3\""}}', 'u 1', '{title,emails}', NULL, 'https://idp.example/scim');
SELECT method, url, headers, body, written, lost FROM person, render_write('scim', 'create', c, NULL, NULL, '{name,emails}', NULL, 'https://idp.example/scim');
SELECT method, url, headers, replace(body, E'\r', '') AS body, written, lost FROM person, render_write('carddav', 'update', '{"title": "CEO", "phones": [{"number": "+44 20 7946 0001", "type": "work"}]}',
	to_jsonb(E'BEGIN:VCARD\r\nVERSION:3.0\r\nUID:urn:uuid:1\r\nN:Ng;Zo;;;\r\nFN:Zo Ng\r\nTITLE:CTO\r\nX-BADGE;TYPE=left:7\r\nEND:VCARD\r\n'::text), 'a b.vcf', '{title,phones}', NULL, 'https://dav.example/ann', '"e1"');
SELECT method, url, headers, body IS NOT NULL AS body, written FROM person, render_write('carddav', 'create', c, NULL, 'urn-1', NULL, NULL, 'https://dav.example/ann/');
SELECT d.name, r.method, r.url, r.headers, r.body FROM (VALUES ('google', 'people/c1'), ('graph', 'A='), ('hubspot', '7'), ('salesforce', '003'), ('scim', 'u1'), ('carddav', 'x.vcf')) d (name, id), render_write(d.name, 'delete', NULL, NULL, d.id, base_version => 'v1') r ORDER BY 1;
\x off

-- ---- what is written reads back: every field, but what is reported as lost ----
CREATE FUNCTION back(connector text, operation text, c contact) RETURNS TABLE (body jsonb, written text[], lost jsonb) LANGUAGE sql AS $$
	SELECT CASE WHEN connector = 'carddav' THEN to_jsonb(r.body) ELSE coalesce(r.body::jsonb #> '{Operations,0,value}', r.body::jsonb) END, r.written, r.lost
	FROM contactsync.render_write(connector, operation, c, NULL, 'x', base_url => 'https://x.example') r $$;
SELECT p.connector, o.operation, (SELECT string_agg(f.key || CASE WHEN f.value = map(p.connector, b.body)::jsonb -> f.key THEN '' ELSE ' (but types)' END, ' ' ORDER BY f.key)
	FROM jsonb_each(c::jsonb) f WHERE f.key = ANY (b.written) AND NOT coalesce(b.lost ? f.key, false)) AS written, b.lost
FROM person, (VALUES ('google'), ('graph'), ('hubspot'), ('salesforce'), ('scim'), ('carddav')) p (connector), (VALUES ('create'), ('update')) o (operation), back(p.connector, o.operation, c) b ORDER BY 1, 2;
-- an empty contact clears, and creates nothing
SELECT p.connector, o.operation, b.body FROM (VALUES ('google'), ('graph'), ('hubspot'), ('salesforce'), ('scim')) p (connector), (VALUES ('create'), ('update')) o (operation),
	render_write(p.connector, o.operation, '{}', NULL, 'x', '{first_name,emails,birthday}', base_url => 'https://x.example') b ORDER BY 1, 2;

-- ---- a connector of one's own ----
SELECT add_connector('w', '{"driver": "rest", "parameters": {"tenant": "t1"}, "list": {"path": "/c", "items": "$.items"}, "item": {"id": "$.id"}, "map": {"first_name": "$.f", "tags": ["$.t[*]"]},
	"write": {"version": "$.rev", "precondition": "header",
	"update": {"method": "PUT", "path": "/{tenant}/c/{id}", "query": {"v": "{base_version}", "f": "{fields}"}, "headers": {"If-Match": "{base_version}"}, "body": {"contact": "{body}", "who": "us"}},
	"fields": [{"name": "f", "of": ["first_name"], "body": {"f": "$.first_name"}}, {"name": "t", "of": ["tags"], "body": {"t": ["$.tags[*]"]}}]}}');
SELECT * FROM render_write('w', 'update', '{"first_name": "A", "tags": ["x"]}', '{"id": "a/b", "rev": 7, "f": "B"}', 'a/b', parameters => '{"tenant": "t2"}', base_url => 'https://api.example');
SELECT * FROM render_write('w', 'update', '{"first_name": "A", "tags": ["x"]}', '{"id": "a", "f": "A", "t": ["x"]}', 'a', base_url => 'https://api.example');
SELECT * FROM render_write('w', 'create', '{}');
SELECT * FROM render_write('w', 'update', '{}');
SELECT * FROM render_write('w', 'upsert', '{}', NULL, 'a');
SELECT * FROM render_write('w', 'update', '{}', NULL, 'a', '{colour}');
SELECT * FROM render_write('nosuch', 'update', '{}', NULL, 'a');
CREATE FUNCTION fault(write jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	path text;
BEGIN
	PERFORM contactsync.add_connector('c', '{"driver": "rest", "list": {"path": "/c", "items": "$.items"}, "item": {"id": "$.id"}}' || jsonb_build_object('write', write));
	RETURN 'none';
EXCEPTION WHEN invalid_parameter_value THEN
	GET STACKED DIAGNOSTICS path = PG_EXCEPTION_DETAIL;
	RETURN SQLERRM || ' -- ' || path;
END
$$;
SELECT n, fault(w::jsonb) FROM (VALUES (1, '{"upsert": {}}'), (2, '{"fields": [{"of": ["title"], "body": {}}], "create": {"method": "GET", "path": "/c"}}'), (3, '{"fields": [{"of": ["title"], "body": {}}], "create": {}}'),
	(4, '{"fields": [{"of": ["title"], "body": {}}], "update": {"path": "/c"}}'), (5, '{"update": {"path": "/c/{id}"}}'), (6, '{"fields": [{"of": ["colour"], "body": {}}]}'), (7, '{"fields": [{"of": ["title"]}]}'),
	(8, '{"fields": [{"body": {}}]}'), (9, '{"fields": [{"of": ["title"], "body": {"a": "$.["}}]}'), (10, '{"fields": [{"of": ["title"], "body": {"a": {"$all": "$.a"}}}]}'), (11, '{"fields": [{"of": ["title"], "body": {}}], "update": {"path": "/c/{id}/{since}"}}'),
	(12, '{"fields": [{"of": ["title"], "body": {}}], "empty": 1}'), (13, '{"fields": [{"of": ["title"], "body": {}}], "precondition": "luck"}'), (14, '{"format": "vcard", "fields": [{"of": ["title"], "body": {}}]}'),
	(15, '{"fields": [{"of": ["title"], "body": {"t": "$.title"}}], "base": {"e": "$.e"}, "create": {"path": "/c"}, "update": {"path": "/c/{id}"}, "delete": {"path": "/c/{id}"}, "answer": {"id": "$.id", "state": "read"}, "conflict": {"status": [412]}}')) v (n, w) ORDER BY n;
DROP TABLE person;
DROP FUNCTION back(text, text, contact), fault(jsonb);
