-- Webhooks: from a request to rows of inbox.

CREATE TABLE contactsync.webhook_refusals (
	tenant_id text COLLATE "C" NOT NULL DEFAULT contactsync.current_tenant(),
	source    text COLLATE "C" NOT NULL,
	reason    text COLLATE "C" NOT NULL,
	hour      timestamptz NOT NULL,
	count     bigint NOT NULL,
	PRIMARY KEY (tenant_id, source, reason, hour)
) WITH (fillfactor = 70);
COMMENT ON TABLE contactsync.webhook_refusals IS 'How many requests to each source''s webhook were refused as unauthenticated; nothing else of them is kept.';
ALTER TABLE contactsync.webhook_refusals OWNER TO contactsync_owner;
ALTER TABLE contactsync.webhook_refusals ENABLE ROW LEVEL SECURITY;
ALTER TABLE contactsync.webhook_refusals FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON contactsync.webhook_refusals
	USING (tenant_id = contactsync.current_tenant())
	WITH CHECK (tenant_id = contactsync.current_tenant());
SELECT pg_catalog.pg_extension_config_dump('contactsync.webhook_refusals', '');
GRANT SELECT ON contactsync.webhook_refusals TO contactsync_admin, contactsync_analyst;

CREATE FUNCTION contactsync._verify_webhook(source text, scheme text, headers jsonb, body bytea,
	OUT ok boolean, OUT event_id text, OUT reason text)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'webhook_verify_sql';

-- The body as JSON, or NULL; nothing of it gets into a message.
CREATE FUNCTION contactsync._webhook_json(body bytea) RETURNS jsonb
	LANGUAGE plpgsql STABLE PARALLEL UNSAFE AS $$
BEGIN
	RETURN pg_catalog.convert_from(body, 'UTF8')::jsonb;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
	RETURN NULL;
END
$$;

-- A time stamp as text or in ms since 1970, or NULL.
CREATE FUNCTION contactsync._webhook_time(value jsonb) RETURNS timestamptz
	LANGUAGE plpgsql STABLE PARALLEL UNSAFE AS $$
DECLARE
	result timestamptz;
BEGIN
	IF pg_catalog.jsonb_typeof(value) = 'number' THEN
		result := pg_catalog.to_timestamp(value::double precision / 1000);
	-- neither "now" nor "infinity", and no time of day alone
	ELSIF pg_catalog.jsonb_typeof(value) = 'string' AND value #>> '{}' ~ '^\d{4}-\d\d-\d\d' THEN
		result := (value #>> '{}')::timestamptz;
	END IF;
	RETURN CASE WHEN pg_catalog.isfinite(result) THEN result END;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
	RETURN NULL;
END
$$;

CREATE FUNCTION contactsync._receive(source text, headers jsonb, body bytea, method text, path text,
	OUT status integer, OUT answer text, OUT events integer)
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	tenant CONSTANT text := contactsync.current_tenant();
	spec jsonb;
	check_ record;
	event jsonb;
	event_id text;
	event_kind text;
	item jsonb;
	item_id text;
	version jsonb;
	created jsonb;
	item_version timestamptz;
	item_created timestamptz;
	reason text;
	next_id bigint;
BEGIN
	PERFORM contactsync._require_active();
	events := 0;
	IF method IS DISTINCT FROM 'POST' THEN
		PERFORM contactsync._count_now(NULL, 'webhooks_refused_total:method');
		status := 405;
		answer := '{"error": "method not allowed"}';
		RETURN;
	END IF;
	IF pg_catalog.octet_length(body) > pg_catalog.pg_size_bytes(pg_catalog.current_setting('contactsync.max_payload')) THEN
		PERFORM contactsync._count_now(NULL, 'webhooks_refused_total:too large');
		status := 413;
		answer := '{"error": "too large"}';
		RETURN;
	END IF;
	SELECT c.spec -> 'webhook' INTO spec
	FROM contactsync.sources s JOIN contactsync.connectors c ON c.name = s.connector AND c.tenant_id IN (tenant, '*')
	WHERE s.tenant_id = tenant AND s.name = _receive.source AND s.settings @> '{"webhook": true}' AND s.state <> 'dropped'
	ORDER BY c.tenant_id = tenant DESC LIMIT 1;
	IF spec ->> 'scheme' IS NULL THEN
		PERFORM contactsync._count_now(NULL, 'webhooks_refused_total:no such webhook');
		status := 404;
		answer := '{"error": "not found"}';
		RETURN;
	END IF;
	SELECT v.* INTO STRICT check_ FROM contactsync._verify_webhook(source, spec ->> 'scheme', headers, body) v;
	IF NOT check_.ok THEN
		INSERT INTO contactsync.webhook_refusals AS r (tenant_id, source, reason, hour, count)
		VALUES (tenant, _receive.source, check_.reason, pg_catalog.date_trunc('hour', pg_catalog.now()), 1)
		ON CONFLICT ON CONSTRAINT webhook_refusals_pkey DO UPDATE SET count = r.count + 1;
		status := 401;
		answer := '{"error": "unauthorized"}';
		RETURN;
	END IF;

	spec := '{"items": "$.data", "id": "$.id", "version": "$.updated_at", "created": "$.created_at", "deleted": "$.deleted",
		"payload": "$", "event": "$.type", "delete_events": ["contact.deleted"]}' || spec;
	body := coalesce(body, '');
	event := contactsync._webhook_json(body);
	event_id := coalesce(
		pg_catalog.jsonb_path_query_first(event, (spec ->> 'event_id')::jsonpath, '{}', true) #>> '{}',
		check_.event_id);
	-- one that an index could not hold is named by its digest
	IF event_id IS NULL OR event_id = '' THEN
		event_id := pg_catalog.encode(pg_catalog.sha256(body), 'hex');
	ELSIF pg_catalog.octet_length(event_id) > 255 THEN
		event_id := pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(event_id, 'UTF8')), 'hex');
	END IF;

	next_id := pg_catalog.nextval('contactsync.inbox_id_seq');
	INSERT INTO contactsync.inbox_dedup (tenant_id, source, key, inbox_id)
	-- what was no JSON does not stand in the way of what is
	VALUES (tenant, _receive.source, CASE WHEN event IS NULL THEN 'webhook, not JSON:' ELSE 'webhook:' END || event_id, next_id)
	ON CONFLICT ON CONSTRAINT inbox_dedup_pkey DO NOTHING;
	IF event IS NULL THEN
		IF FOUND THEN
			INSERT INTO contactsync.inbox (tenant_id, id, source, source_id, kind, version, failed_at, error_code, error)
			VALUES (tenant, next_id, _receive.source, event_id, 'snapshot', pg_catalog.now(), pg_catalog.clock_timestamp(),
				'22P02', 'the webhook body is not JSON');
		END IF;
		PERFORM contactsync._count_now(source, 'webhooks_refused_total:not JSON');
		status := 400;
		answer := '{"error": "the body is not JSON"}';
		RETURN;
	END IF;
	IF NOT FOUND THEN
		PERFORM contactsync._count(source, 'webhooks_total:duplicate');
		status := 200;
		answer := '{"duplicate": true}';
		RETURN;
	END IF;

	event_kind := CASE WHEN spec -> 'delete_events' ? (pg_catalog.jsonb_path_query_first(event, (spec ->> 'event')::jsonpath, '{}', true) #>> '{}')
		THEN 'delete' END;
	FOR item IN SELECT pg_catalog.jsonb_path_query(event, (spec ->> 'items')::jsonpath, '{}', true) LOOP
		item_id := (SELECT CASE WHEN pg_catalog.jsonb_typeof(i) IN ('string', 'number') THEN i #>> '{}' END
			FROM pg_catalog.jsonb_path_query_first(item, (spec ->> 'id')::jsonpath, '{}', true) i);
		version := pg_catalog.jsonb_path_query_first(item, (spec ->> 'version')::jsonpath, '{}', true);
		created := pg_catalog.jsonb_path_query_first(item, (spec ->> 'created')::jsonpath, '{}', true);
		item_version := contactsync._webhook_time(version);
		item_created := contactsync._webhook_time(created);
		reason := CASE
			WHEN item_id IS NULL OR item_id = '' THEN 'the item has no id'
			WHEN pg_catalog.octet_length(item_id) > 1024 THEN 'the id of the item is too long'
			WHEN item_version IS NULL AND version <> 'null' THEN 'the version of the item cannot be read'
			WHEN item_created IS NULL AND created <> 'null' THEN 'the creation time of the item cannot be read'
		END;
		INSERT INTO contactsync.inbox (tenant_id, id, source, source_id, kind, version, created, payload,
			failed_at, error_code, error)
		VALUES (tenant, next_id, _receive.source,
			-- a row that failed for its id is found by the event's
			CASE WHEN item_id <> '' AND pg_catalog.octet_length(item_id) <= 1024 THEN item_id ELSE event_id END,
			CASE WHEN pg_catalog.jsonb_path_query_first(item, (spec ->> 'deleted')::jsonpath, '{}', true) = 'true' THEN 'delete'
				ELSE coalesce(event_kind, 'snapshot') END,
			coalesce(item_version, pg_catalog.now()), item_created,
			coalesce(pg_catalog.jsonb_path_query_first(item, (spec ->> 'payload')::jsonpath, '{}', true), item),
			CASE WHEN reason IS NOT NULL THEN pg_catalog.clock_timestamp() END,
			CASE WHEN reason IS NOT NULL THEN '22P02' END,
			reason);
		IF reason IS NOT NULL THEN
			PERFORM contactsync._count(source, 'events_total:rejected');
		END IF;
		next_id := pg_catalog.nextval('contactsync.inbox_id_seq');
		events := events + 1;
	END LOOP;
	PERFORM contactsync._count(source, 'webhooks_total:accepted');
	status := 200;
	answer := pg_catalog.format('{"accepted": %s}', events);
END
$$;
CREATE FUNCTION contactsync.receive(source text, headers jsonb, body bytea, method text DEFAULT 'POST', path text DEFAULT '/',
	OUT status integer, OUT body text, OUT events integer)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.receive(text, jsonb, bytea, text, text) IS
	'Check a webhook request, queue what it says, and give the answer to send: status 200 accepted (or seen before), 400 not JSON, 401 signature, 404 no such webhook, 405, 413. Stores nothing of a request that is not authentic. Errors: 55000 dormant copy, or secrets that cannot be opened.';
GRANT EXECUTE ON FUNCTION contactsync.receive(text, jsonb, bytea, text, text) TO contactsync_app, contactsync_admin;
