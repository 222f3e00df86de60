-- Webhooks: who may speak, what is taken from what they say, and what is not.
\set VERBOSITY terse
SELECT contactsync.activate();
-- a key to seal the secrets of this test with, where regress.conf says
SELECT current_setting('data_directory') || '/' || current_setting('contactsync.secret_key_file') AS keyfile \gset
COPY (SELECT repeat('5a', 32)) TO :'keyfile';

-- HMAC by the book, so that the signatures here are not our own code's
CREATE FUNCTION pg_temp.xor_key(key bytea, with_ integer) RETURNS bytea LANGUAGE sql AS $$
	SELECT string_agg(decode(lpad(to_hex(CASE WHEN i < octet_length(key) THEN get_byte(key, i) ELSE 0 END # with_), 2, '0'), 'hex'), '' ORDER BY i)
	FROM generate_series(0, 63) i
$$;
CREATE FUNCTION pg_temp.hmac(key bytea, data bytea) RETURNS bytea LANGUAGE sql AS $$
	SELECT sha256(pg_temp.xor_key(k, 92) || sha256(pg_temp.xor_key(k, 54) || data))
	FROM (SELECT CASE WHEN octet_length(key) > 64 THEN sha256(key) ELSE key END AS k) x
$$;
CREATE FUNCTION pg_temp.github(body text, id text DEFAULT NULL, secret text DEFAULT 'It''s a Secret to Everybody') RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_strip_nulls(jsonb_build_object('X-GitHub-Delivery', id,
		'X-Hub-Signature-256', 'sha256=' || encode(pg_temp.hmac(convert_to(secret, 'UTF8'), convert_to(body, 'UTF8')), 'hex')))
$$;
CREATE FUNCTION pg_temp.standard(body text, id text, age interval DEFAULT '0', secret text DEFAULT 'MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw') RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_object('webhook-id', id, 'webhook-timestamp', t, 'webhook-signature',
		'v1,' || encode(pg_temp.hmac(decode(secret, 'base64'), convert_to(id || '.' || t || '.' || body, 'UTF8')), 'base64'))
	FROM (SELECT floor(extract(epoch FROM statement_timestamp() - age))::bigint::text AS t) x
$$;
-- the example in GitHub's documentation
SELECT pg_temp.github('Hello, World!');

INSERT INTO contactsync.connectors (name, spec) VALUES
	('std', '{"webhook": {"scheme": "standard"}}'),
	('hub', '{"webhook": {"scheme": "github", "items": "$.items[*]", "id": "$.key", "version": "$.at", "event_id": "$.event"}}'),
	('dumb', '{}'),
	('odd', '{"webhook": {"scheme": "no such"}}');
INSERT INTO contactsync.sources (name, connector, settings) VALUES
	('std', 'std', '{"webhook": true}'), ('hub', 'hub', '{"webhook": true}'), ('off', 'std', '{"webhook": false}'),
	('dumb', 'dumb', '{"webhook": true}'), ('odd', 'odd', '{"webhook": true}'), ('bare', 'hub', '{"webhook": true}');
SELECT contactsync._set_secrets('std', '{"webhook": ["whsec_bmV2ZXIgdXNlZCBhbnl3aGVyZSBoZXJl", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]}');
SELECT contactsync._set_secrets('hub', '{"webhook": "It''s a Secret to Everybody", "token": "other"}');

SET ROLE contactsync_app;
-- what does not get as far as a signature
SELECT * FROM contactsync.receive('std', '{}', '{}', 'GET');
SELECT * FROM contactsync.receive('std', '{}', convert_to(repeat('x', 1024 * 1024 + 1), 'UTF8'));
SELECT s, r.* FROM unnest(ARRAY['no such', 'off', 'dumb', NULL]) s, contactsync.receive(s, '{}', '{}') r;
SELECT * FROM contactsync.receive('odd', '{}', '{}');

-- signatures: each of these is refused
SELECT n, r.* FROM (VALUES
	(1, pg_temp.standard('{}', 'm1', '301 seconds')),
	(2, pg_temp.standard('{}', 'm1', '-302 seconds')),
	(3, pg_temp.standard('{}', 'm1') - 'webhook-id'),
	(4, pg_temp.standard('{}', 'm1') - 'webhook-timestamp'),
	(5, pg_temp.standard('{}', 'm1') - 'webhook-signature'),
	(6, pg_temp.standard('{}', 'm1') || '{"webhook-id": "m2"}'),
	(7, pg_temp.standard('{} ', 'm1')),
	(8, pg_temp.standard('{}', 'm.1')),
	(9, pg_temp.standard('{}', 'm1') || '{"webhook-timestamp": "soon"}'),
	(10, pg_temp.standard('{}', 'm1') || '{"Webhook-Id": "m2"}'),
	(11, pg_temp.standard('{}', 'm1', secret => 'b3RoZXIgc2VjcmV0IG9mIHNvbWVib2R5')),
	(12, jsonb_set(pg_temp.standard('{}', 'm1'), '{webhook-signature}', '"v1,"')),
	(13, jsonb_set(pg_temp.standard('{}', 'm1'), '{webhook-signature}', to_jsonb(replace(pg_temp.standard('{}', 'm1') ->> 'webhook-signature', 'v1,', 'v2,')))),
	(14, jsonb_set(pg_temp.standard('{}', 'm1'), '{webhook-signature}', '5')),
	(15, '[]'), (16, NULL)) v (n, headers), contactsync.receive('std', headers, '{}') r ORDER BY n;
SELECT n, r.* FROM (VALUES
	(1, pg_temp.github('{ }')),
	(2, jsonb_build_object('X-Hub-Signature-256', upper(pg_temp.github('{}') ->> 'X-Hub-Signature-256'))),
	(3, jsonb_build_object('X-Hub-Signature-256', left(pg_temp.github('{}') ->> 'X-Hub-Signature-256', -2))),
	(4, jsonb_build_object('X-Hub-Signature-256', substr(pg_temp.github('{}') ->> 'X-Hub-Signature-256', 8))),
	(5, pg_temp.github('{}', secret => 'other'))) v (n, headers), contactsync.receive('hub', headers, '{}') r ORDER BY n;
SELECT * FROM contactsync.receive('bare', pg_temp.github('{}', secret => ''), '{}');
RESET ROLE;
SELECT count(*) FROM contactsync.inbox WHERE source IN ('std', 'hub', 'bare', 'shipped');
SELECT count(*) FROM contactsync.inbox_dedup WHERE source IN ('std', 'hub', 'bare', 'shipped');
SET ROLE contactsync_analyst;
SELECT source, reason, sum(count) FROM contactsync.webhook_refusals GROUP BY 1, 2 ORDER BY 1, 2;
RESET ROLE;

SET ROLE contactsync_app;
-- each of these is accepted, and only once
SELECT n, r.* FROM (VALUES
	(1, pg_temp.standard('{"type": "contact.updated", "data": {"id": "a", "updated_at": "2026-01-02T03:04:05Z", "created_at": "2025-01-01T00:00:00Z", "name": "Ann"}}', 'm1')),
	(2, pg_temp.standard('{"type": "contact.updated", "data": {"id": "a", "updated_at": "2026-01-02T03:04:05Z", "created_at": "2025-01-01T00:00:00Z", "name": "Ann"}}', 'm1', '299 seconds')))
	v (n, headers), contactsync.receive('std', headers,
	'{"type": "contact.updated", "data": {"id": "a", "updated_at": "2026-01-02T03:04:05Z", "created_at": "2025-01-01T00:00:00Z", "name": "Ann"}}') r ORDER BY n;
-- any case of the names, and other versions beside
SELECT r.* FROM (SELECT jsonb_object_agg(upper(key), CASE key WHEN 'webhook-signature' THEN 'v1a,AAAA ' || value || ' v1,AAAA' ELSE value END) AS headers
	FROM jsonb_each_text(pg_temp.standard('{"type": "contact.deleted", "data": {"id": 7, "updated_at": 1767323045000}}', 'm2'))) h,
	contactsync.receive('std', headers, '{"type": "contact.deleted", "data": {"id": 7, "updated_at": 1767323045000}}') r;
SELECT * FROM contactsync.receive('std', pg_temp.standard('{"data": {"id": "b", "deleted": true}}', 'm3'), '{"data": {"id": "b", "deleted": true}}');
SELECT * FROM contactsync.receive('std', pg_temp.standard('{"type": "ping"}', 'm4'), '{"type": "ping"}');
-- not JSON: kept as failed, once
SELECT b, i, r.status, r.body, r.events FROM unnest(ARRAY['name=Ann', '{"data": "\u0000"}', '', '{"a": 1e999999}']) WITH ORDINALITY AS u (b, i), generate_series(1, 2) n,
	contactsync.receive('std', pg_temp.standard(b, 'bad' || i) || jsonb_build_object('n', n), convert_to(b, 'UTF8')) r ORDER BY n, i;
SELECT r.* FROM (SELECT jsonb_build_object('x-hub-signature-256',
		'sha256=' || encode(pg_temp.hmac('It''s a Secret to Everybody', '\x7bff7d'), 'hex')) AS headers) h, contactsync.receive('hub', headers, '\x7bff7d') r;
-- several items, some of them broken; the event's id is in the body
\set body '{"event": "e1", "items": [{"key": "x", "at": "2026-01-02"}, {"at": "2026-01-02"}, {"key": "y", "at": "now"}, {"key": "z", "at": "infinity"}, {"key": "v", "at": "2026-99-99"}, {"key": "u", "at": true}, {"key": {"no": 1}, "at": null}, {"key": "w", "at": null}, {"key": "t", "created_at": "never"}, 5]}'
SELECT * FROM contactsync.receive('hub', pg_temp.github(:'body', 'd1'), convert_to(:'body', 'UTF8'));
SELECT * FROM contactsync.receive('hub', pg_temp.github(:'body', 'd2'), convert_to(:'body', 'UTF8'));
-- no id at all, and one that is too long: the digest
SELECT n, r.* FROM generate_series(1, 2) n, contactsync.receive('hub', pg_temp.github('{"items": {"key": "k"}}') || jsonb_build_object('n', n), '{"items": {"key": "k"}}') r;
SELECT n, r.* FROM generate_series(1, 2) n, contactsync.receive('hub', pg_temp.github('{"items": {"key": "k"}}', repeat('i', 4000)) || jsonb_build_object('n', n), '{"items": {"key": "k"}}') r;
SELECT r.* FROM (SELECT jsonb_build_object('items', jsonb_build_object('key', repeat('k', 2000)))::text AS b) x,
	contactsync.receive('hub', pg_temp.github(b, 'd3'), convert_to(b, 'UTF8')) r;
RESET ROLE;
SELECT source, left(source_id, 10) AS source_id, kind, CASE WHEN version <> received_at::date AND version < '2026-02-01' THEN version END AS version,
	created, left(payload::text, 60) AS payload, error_code, error
FROM contactsync.inbox WHERE source IN ('std', 'hub', 'bare', 'shipped') ORDER BY id;
SELECT source, left(key, 30) AS key FROM contactsync.inbox_dedup WHERE source IN ('std', 'hub', 'bare', 'shipped') ORDER BY inbox_id, key COLLATE "C";

-- a connector of the tenant hides the shipped one
INSERT INTO contactsync.connectors (tenant_id, name, spec) VALUES ('*', 'hub', '{}'), ('*', 'shipped', '{"webhook": {"scheme": "github"}}');
INSERT INTO contactsync.sources (name, connector, settings) VALUES ('shipped', 'shipped', '{"webhook": true}');
SELECT contactsync._set_secrets('shipped', '{"webhook": "It''s a Secret to Everybody"}');
SELECT s, r.* FROM unnest(ARRAY['hub', 'shipped']) s, contactsync.receive(s, pg_temp.github('{}', 'd4'), '{}') r;

-- rolled back, it may come again
BEGIN;
SELECT * FROM contactsync.receive('shipped', pg_temp.github('{}', 'd5'), '{}');
ROLLBACK;
SELECT * FROM contactsync.receive('shipped', pg_temp.github('{}', 'd5'), '{}');
-- the row has the columns of receive()
SELECT to_jsonb(contactsync.receive('shipped', pg_temp.github('{}', 'd5'), body => '{}'));

-- who may not
SET ROLE contactsync_analyst;
SELECT * FROM contactsync.receive('shipped', '{}', '{}');
RESET ROLE;
SET ROLE contactsync_app;
SELECT * FROM contactsync._verify_webhook('shipped', 'github', '{}', '{}');
SELECT contactsync._set_secrets('shipped', '{}');
SELECT count(*) FROM contactsync.webhook_refusals;
RESET ROLE;

-- shapes of secrets
SELECT contactsync._set_secrets('hub', '"hush"');
SELECT contactsync._set_secrets('hub', '{"webhook": 5}');
SELECT contactsync._set_secrets('hub', '{"webhook": null}');
SELECT contactsync._set_secrets('hub', '{"webhook": []}');
SELECT contactsync._set_secrets('hub', '{"webhook": ""}');
SELECT contactsync._set_secrets('hub', '{"webhook": {"file": "/a", "hush": 1}}');
SELECT contactsync._set_secrets('hub', '{"web.hook": "hush"}');
SELECT contactsync._set_secrets('hub', '{"webhook": {"file": "/a"}}');
SELECT contactsync._set_secrets('hub', NULL);
SELECT name FROM contactsync.source_secrets WHERE source = 'hub' ORDER BY name;
SELECT contactsync._set_secrets('hub', '{}');
SELECT name FROM contactsync.source_secrets WHERE source = 'hub' ORDER BY name;
SELECT * FROM contactsync.receive('hub', pg_temp.github('{}', 'd6'), '{}');

DELETE FROM contactsync.webhook_refusals;
DELETE FROM contactsync.inbox WHERE source IN ('std', 'hub', 'bare', 'shipped');
DELETE FROM contactsync.inbox_dedup WHERE source IN ('std', 'hub', 'bare', 'shipped');
DELETE FROM contactsync.source_secrets WHERE source IN ('std', 'hub', 'bare', 'shipped');
DELETE FROM contactsync.sources WHERE connector IN ('std', 'hub', 'dumb', 'odd', 'shipped');
DELETE FROM contactsync.connectors WHERE name IN ('std', 'hub', 'dumb', 'odd', 'shipped');
