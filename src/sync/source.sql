-- Connectors, and the sources that use them.

CREATE FUNCTION contactsync._is_webhook_scheme(name text) RETURNS boolean
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'webhook_is_scheme_sql';

CREATE FUNCTION contactsync._check_connector(spec jsonb) RETURNS void
	LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
	bad text;
	known CONSTANT jsonb := '{"driver": 0, "list": {"path": 0, "query": 1, "since": {"param": 0, "overlap": 0},
		"page": {"param": 0, "next": 2}, "items": 2}, "item": {"id": 2, "version": 2, "created": 2, "deleted": 2, "payload": 2},
		"webhook": {"scheme": 0, "items": 2, "id": 2, "version": 2, "created": 2, "deleted": 2, "payload": 2, "event": 2, "event_id": 2, "delete_events": 3},
		"map": 1}';
	todo record;
	e record;
BEGIN
	IF spec IS NULL OR pg_catalog.jsonb_typeof(spec) <> 'object' OR NOT coalesce(spec ->> 'driver' IN ('canonical', 'rest', 'carddav'), false) THEN
		RAISE EXCEPTION 'invalid connector: the driver must be "rest", "carddav" or "canonical"' USING ERRCODE = 'invalid_parameter_value',
			DETAIL = 'JSON path: $.driver';
	END IF;
	-- every member is known, and is a path (2), a text (0), a list (3) or free (1) as it should be
	FOR todo IN
		WITH RECURSIVE walk AS (
			SELECT '$' AS at, spec AS given, known AS rule
			UNION ALL
			SELECT w.at || '.' || m.key, m.value, w.rule -> m.key
			FROM walk w, pg_catalog.jsonb_each(CASE pg_catalog.jsonb_typeof(w.given) WHEN 'object' THEN w.given ELSE '{}' END) m
			WHERE pg_catalog.jsonb_typeof(w.rule) = 'object')
		SELECT * FROM walk WHERE at <> '$'
	LOOP
		IF todo.rule IS NULL THEN
			bad := 'unknown member';
		ELSIF pg_catalog.jsonb_typeof(todo.rule) = 'object' OR todo.rule = '1' THEN
			bad := CASE WHEN pg_catalog.jsonb_typeof(todo.given) <> 'object' THEN 'expected an object' END;
		ELSIF todo.rule = '3' THEN
			bad := CASE WHEN pg_catalog.jsonb_typeof(todo.given) <> 'array' THEN 'expected an array' END;
		ELSIF pg_catalog.jsonb_typeof(todo.given) <> 'string' THEN
			bad := 'expected a text';
		ELSIF todo.rule = '2' THEN
			BEGIN
				PERFORM (todo.given #>> '{}')::pg_catalog.jsonpath;
			EXCEPTION WHEN syntax_error OR invalid_text_representation THEN
				bad := 'expected an SQL/JSON path';
			END;
		END IF;
		IF bad IS NOT NULL THEN
			RAISE EXCEPTION 'invalid connector: %', bad USING ERRCODE = 'invalid_parameter_value', DETAIL = 'JSON path: ' || todo.at;
		END IF;
	END LOOP;
	IF NOT contactsync._is_webhook_scheme(spec #>> '{webhook,scheme}') THEN
		RAISE EXCEPTION 'invalid connector: unknown webhook scheme' USING ERRCODE = 'invalid_parameter_value',
			DETAIL = 'JSON path: $.webhook.scheme', HINT = 'Schemes are standard and github.';
	END IF;
	IF spec ->> 'driver' = 'rest' THEN
		SELECT r INTO bad FROM pg_catalog.unnest(ARRAY['list,path', 'list,items', 'item,id']) r
		WHERE spec #> pg_catalog.string_to_array(r, ',') IS NULL LIMIT 1;
		IF FOUND THEN
			RAISE EXCEPTION 'invalid connector: a member is missing' USING ERRCODE = 'invalid_parameter_value',
				DETAIL = 'JSON path: $.' || pg_catalog.replace(bad, ',', '.');
		END IF;
		BEGIN
			PERFORM (spec #>> '{list,since,overlap}')::interval;
		EXCEPTION WHEN invalid_datetime_format OR datetime_field_overflow OR interval_field_overflow THEN
			RAISE EXCEPTION 'invalid connector: expected an interval' USING ERRCODE = 'invalid_parameter_value',
				DETAIL = 'JSON path: $.list.since.overlap';
		END;
	END IF;
	FOR e IN SELECT m.key, m.value FROM pg_catalog.jsonb_each(spec -> 'map') m LOOP
		IF e.key <> ALL (ARRAY['first_name', 'middle_name', 'last_name', 'prefix', 'suffix', 'nickname', 'company', 'department',
				'title', 'birthday', 'note', 'photo', 'emails', 'phones', 'addresses', 'urls', 'tags', 'metadata'])
			OR pg_catalog.jsonb_typeof(e.value) <> (CASE
				WHEN e.key = 'metadata' THEN 'object'
				WHEN e.key IN ('emails', 'phones', 'addresses', 'urls', 'tags') THEN 'array' ELSE 'string' END) THEN
			RAISE EXCEPTION 'invalid connector: no such field, or not of its form' USING ERRCODE = 'invalid_parameter_value',
				DETAIL = 'JSON path: $.map.' || e.key,
				HINT = 'A single field is mapped by a path, a list by an array of templates, metadata by an object of paths.';
		END IF;
	END LOOP;
	FOR e IN SELECT p #>> '{}' AS path FROM pg_catalog.jsonb_path_query(spec -> 'map', 'strict $.** ? (@.type() == "string" && @ starts with "$")') p LOOP
		BEGIN
			PERFORM e.path::pg_catalog.jsonpath;
		EXCEPTION WHEN syntax_error OR invalid_text_representation THEN
			RAISE EXCEPTION 'invalid connector: "%" is no SQL/JSON path', e.path USING ERRCODE = 'invalid_parameter_value',
				DETAIL = 'JSON path: $.map';
		END;
	END LOOP;
END
$$;

CREATE FUNCTION contactsync._ship_connector(name text, spec jsonb) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
BEGIN
	PERFORM contactsync._check_connector(spec);
	INSERT INTO contactsync.connectors (tenant_id, name, spec) VALUES ('*', _ship_connector.name, _ship_connector.spec);
END
$$;

CREATE FUNCTION contactsync._connector(name text) RETURNS jsonb
	LANGUAGE sql STABLE PARALLEL RESTRICTED AS $$
	SELECT c.spec FROM contactsync.connectors c
	WHERE c.tenant_id IN (contactsync.current_tenant(), '*') AND c.name = _connector.name
	ORDER BY c.tenant_id = '*' LIMIT 1
$$;

CREATE FUNCTION contactsync._add_connector(name text, spec jsonb) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
BEGIN
	PERFORM contactsync._require_active();
	IF name IS NULL OR name = '' THEN
		RAISE EXCEPTION 'a connector needs a name' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	PERFORM contactsync._check_connector(spec);
	INSERT INTO contactsync.connectors AS c (name, spec) VALUES (_add_connector.name, _add_connector.spec)
	ON CONFLICT ON CONSTRAINT connectors_pkey DO UPDATE SET spec = excluded.spec, changed_at = pg_catalog.now()
		WHERE c.spec <> excluded.spec;
END
$$;
CREATE FUNCTION contactsync.add_connector(name text, spec jsonb) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.add_connector(text, jsonb) IS
	'Describe how to read a kind of provider (driver rest), or change the description; what is stored already keeps the mapping it came with. Errors: 22023 with the JSON path of the fault.';

CREATE FUNCTION contactsync._map(connector text, payload jsonb) RETURNS contactsync.contact
	LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'store_map_sql';
CREATE FUNCTION contactsync.map(connector text, payload jsonb) RETURNS contactsync.contact
	LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.map(text, jsonb) IS
	'The contact that a connector makes of a provider''s payload. Errors: 42704 unknown connector, 22P02 with the JSON path.';

-- What a source may be given to write: fields, groups and sets of them.
CREATE FUNCTION contactsync._writable() RETURNS jsonb
	LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	SELECT '["business", "personal", "name", "job", "nickname", "birthday", "note", "photo", "emails", "phones", "addresses", "urls", "tags", "metadata"]'::jsonb
$$;

CREATE FUNCTION contactsync._check_settings(driver text, settings jsonb) RETURNS void
	LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
	s record;
	ok boolean;
BEGIN
	IF settings IS NULL OR pg_catalog.jsonb_typeof(settings) <> 'object' THEN
		RAISE EXCEPTION 'settings must be a JSON object' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	FOR s IN SELECT m.key, m.value, pg_catalog.jsonb_typeof(m.value) AS type FROM pg_catalog.jsonb_each(settings) m LOOP
		ok := CASE
			WHEN s.key = 'class' THEN s.type = 'string'
			WHEN s.key = 'webhook' THEN s.type = 'boolean'
			WHEN driver = 'canonical' THEN false
			WHEN s.key = 'url' THEN s.type = 'string' AND s.value #>> '{}' ~ '^https?://[^/@?#\s]+(/[^?#\s]*)?$'
			WHEN s.key IN ('allow_private', 'allow_http') THEN s.type = 'boolean'
			WHEN s.key = 'poll' THEN s.type = 'string' OR s.value = 'false'
			WHEN s.key = 'write' THEN s.type = 'array' AND s.value <@ contactsync._writable()
			ELSE false END;
		IF ok AND s.key = 'poll' AND s.type = 'string' THEN
			BEGIN
				ok := (s.value #>> '{}')::interval >= interval '1 second';
			EXCEPTION WHEN invalid_datetime_format OR datetime_field_overflow THEN
				ok := false;
			END;
		END IF;
		IF NOT ok THEN
			RAISE EXCEPTION 'invalid setting "%"', s.key USING ERRCODE = 'invalid_parameter_value',
				HINT = CASE driver WHEN 'canonical' THEN 'The connector knows class (a text that set_policy() can name in place of the source) and webhook (boolean).'
					ELSE 'Settings are url (without user, query or fragment), class, poll (an interval of a second or more, or false), webhook, allow_private and allow_http (booleans), write (an array of fields or sets of them).' END;
		END IF;
	END LOOP;
	IF driver <> 'canonical' THEN
		IF settings -> 'url' IS NULL THEN
			RAISE EXCEPTION 'setting "url" is missing' USING ERRCODE = 'invalid_parameter_value';
		ELSIF settings ->> 'url' LIKE 'http:%' AND NOT coalesce((settings -> 'allow_http')::boolean, false) THEN
			RAISE EXCEPTION 'the url is not https' USING ERRCODE = 'invalid_parameter_value',
				HINT = 'The setting "allow_http" permits it: contacts and credentials then travel in clear.';
		END IF;
	END IF;
END
$$;

CREATE FUNCTION contactsync._poll_interval(settings jsonb) RETURNS interval
	LANGUAGE sql STABLE PARALLEL SAFE AS $$
	SELECT CASE WHEN settings -> 'url' IS NULL OR settings -> 'poll' = 'false' THEN NULL
		ELSE coalesce(settings ->> 'poll', '5 min')::interval END
$$;

CREATE FUNCTION contactsync._add_source(name text, connector text, settings jsonb, secret jsonb) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	driver text := contactsync._connector(connector) ->> 'driver';
	known contactsync.sources;
	unknown text;
	result bigint;
BEGIN
	PERFORM contactsync._require_active();
	IF name IS NULL OR name = '' OR name = 'decision' THEN
		RAISE EXCEPTION 'a source needs a name' USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Give it a name of your own; "decision" is reserved.';
	END IF;
	IF driver IS NULL THEN
		RAISE EXCEPTION 'connector "%" does not exist', connector USING ERRCODE = 'undefined_object',
			HINT = 'Shipped are "canonical" (payloads in the JSON form of contactsync.contact, pushed by ingest()), "carddav" and "rest"; add_connector() makes others.';
	END IF;
	FOR unknown IN SELECT k FROM pg_catalog.jsonb_object_keys(CASE pg_catalog.jsonb_typeof(secret) WHEN 'object' THEN secret ELSE '{}' END) k
		WHERE k NOT IN ('token', 'username', 'password', 'webhook') LOOP
		RAISE EXCEPTION 'a source has no use for a secret of this name' USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Names are token (bearer), username and password (basic), and webhook.';
	END LOOP;
	PERFORM contactsync._check_settings(driver, settings);
	IF settings ? 'write' THEN
		RAISE NOTICE 'nothing is written back to source "%" yet: this version only reads', name;
	END IF;
	INSERT INTO contactsync.sources AS s (name, connector, class, settings, next_poll_at)
	VALUES (_add_source.name, _add_source.connector, settings ->> 'class', _add_source.settings,
		CASE WHEN contactsync._poll_interval(settings) IS NOT NULL THEN pg_catalog.now() END)
	ON CONFLICT ON CONSTRAINT sources_tenant_id_name_key DO NOTHING RETURNING s.id INTO result;
	IF result IS NULL THEN
		SELECT s.* INTO STRICT known FROM contactsync.sources s
		WHERE s.tenant_id = contactsync.current_tenant() AND s.name = _add_source.name;
		IF known.connector <> _add_source.connector OR known.settings <> _add_source.settings THEN
			RAISE EXCEPTION 'source "%" exists with other settings', name USING ERRCODE = 'duplicate_object';
		END IF;
		result := known.id;
	END IF;
	PERFORM contactsync._set_secrets(name, secret);
	RETURN result;
END
$$;
CREATE FUNCTION contactsync.add_source(name text, connector text, settings jsonb DEFAULT '{}', secret jsonb DEFAULT NULL) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.add_source(text, text, jsonb, jsonb) IS
	'Make a source known, and return its id; the same call again returns the same id. Settings: class, url, poll, webhook, allow_private, allow_http, write (kept for a version that writes back); secret: token, or username and password, and webhook, each a text or {"file": path}. Errors: 42704 unknown connector, 22023 invalid setting or secret, 42710 the name is taken, 55000 dormant copy, or a secret in clear where no key file is set.';

CREATE FUNCTION contactsync._set_source_state(source text, state text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
BEGIN
	PERFORM contactsync._require_active();
	UPDATE contactsync.sources s SET state = _set_source_state.state,
		next_poll_at = CASE WHEN _set_source_state.state = 'active' AND contactsync._poll_interval(s.settings) IS NOT NULL
			THEN pg_catalog.clock_timestamp() END
	WHERE s.tenant_id = contactsync.current_tenant() AND s.name = source;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'source "%" does not exist', source USING ERRCODE = 'undefined_object';
	END IF;
END
$$;
CREATE FUNCTION contactsync._pause_source(source text) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$SELECT contactsync._set_source_state(source, 'paused')$$;
CREATE FUNCTION contactsync._resume_source(source text) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$SELECT contactsync._set_source_state(source, 'active')$$;
CREATE FUNCTION contactsync.pause_source(source text) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.pause_source(text) IS 'Read the source no more until resume_source(); what is pushed is still applied. Errors: 42704.';
CREATE FUNCTION contactsync.resume_source(source text) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.resume_source(text) IS 'Read a paused source again, now and then at its interval. Errors: 42704.';

GRANT EXECUTE ON FUNCTION contactsync.add_connector(text, jsonb), contactsync.add_source(text, text, jsonb, jsonb),
	contactsync.pause_source(text), contactsync.resume_source(text) TO contactsync_admin;
GRANT EXECUTE ON FUNCTION contactsync.map(text, jsonb) TO contactsync_admin, contactsync_app;
