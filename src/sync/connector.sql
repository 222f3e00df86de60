-- Connectors: what may be said of a provider, and trying it.

CREATE FUNCTION contactsync._is_webhook_scheme(name text) RETURNS boolean
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'webhook_is_scheme_sql';

-- What a description may hold. An object = these members; an array of an object = any number of such; an array of
-- texts = one of these words; a text = a kind of value, see _check_member.
CREATE FUNCTION contactsync._connector_rules() RETURNS jsonb
	LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	WITH item AS (SELECT '{"id": "path", "version": "path", "created": "path", "modified": "path", "deleted": "path",
			"into": "path", "payload": "path", "replaces": "path", "history": "path"}'::jsonb AS rules),
	operation AS (SELECT '{"method": ["POST", "PUT", "PATCH", "DELETE"], "path": "template", "query": "templates", "headers": "templates", "body": "body"}'::jsonb AS rules),
	listed AS (SELECT '{"status": "counts", "codes": "texts", "messages": "texts"}'::jsonb AS rules),
	rate AS (SELECT '{"requests": "count", "per": "interval"}'::jsonb AS rules),
	step AS (SELECT '{
			"method": ["GET", "POST"], "path": "template", "query": "templates", "headers": "templates", "body": "body",
			"items": "path", "only_known": "boolean", "end": "path", "total": "path",
			"page": {"style": ["none", "cursor", "url", "link", "offset", "keyset"], "param": "text", "next": "path",
				"key": "path", "start": "text"},
			"since": {"param": "text", "overlap": "interval", "format": ["iso", "iso_seconds", "seconds", "ms"],
				"covered": "path", "available_from": "path"},
			"token": {"next": "path", "style": ["value", "url"]},
			"fetch": {"path": "template", "query": "templates", "unless": "path"}}'::jsonb
			|| pg_catalog.jsonb_build_object('item', item.rules) AS rules FROM item)
	SELECT pg_catalog.jsonb_build_object('list', step.rules, 'partitions',
			step.rules - ARRAY['only_known', 'since', 'token', 'fetch', 'item'] || '{"id": "path", "nested": "template", "only": "template", "fixed": "texts"}',
		'get', step.rules - ARRAY['only_known', 'end', 'total', 'page', 'since', 'token', 'fetch']
			|| '{"gone": {"status": "counts", "codes": "texts", "path": "path"}}',
		 'changes', pg_catalog.jsonb_build_array(step.rules), 'item', item.rules,
		'limits', listed.rules || pg_catalog.jsonb_build_object('rate', rate.rules),
		'write', '{"format": ["json", "vcard"], "empty": "value", "version": "path", "version_format": ["text", "http_date"],
			"precondition": ["header", "body", "compare", "none"], "base": "object",
			"fields": [{"name": "text", "of": "texts", "on": ["create"], "body": "object"}],
			"answer": {"id": "path", "version": "path", "state": ["answer", "read"]}}'::jsonb
			|| pg_catalog.jsonb_build_object('create', operation.rules, 'update', operation.rules, 'delete', operation.rules,
				'conflict', listed.rules, 'exists', listed.rules))
		|| '{"driver": ["rest", "carddav", "canonical"], "url": "url", "trusted_hosts": "hosts", "parameters": "texts by name",
		"lost": {"status": "counts", "codes": "texts", "messages": "texts"},
		"misses": "count", "full_every": "interval",
		"auth": {"token_url": "template", "scope": "template", "client_auth": ["body", "basic"],
			"jwt": {"audience": "template", "subject": "template"}, "api_key": {"header": "text", "query": "text"}},
		"webhook": {"scheme": "text", "items": "path", "id": "path", "version": "path", "created": "path", "deleted": "path",
			"payload": "path", "event": "path", "event_id": "path", "delete_events": "texts"},
		"map": "object"}'
	FROM item, rate, step, operation, listed
$$;

-- What is wrong with a value that should be of a kind; NULL if nothing is.
CREATE FUNCTION contactsync._check_member(rule jsonb, given jsonb, variables text[]) RETURNS text
	LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
	kind text := CASE pg_catalog.jsonb_typeof(rule) WHEN 'string' THEN rule #>> '{}'
		WHEN 'array' THEN CASE pg_catalog.jsonb_typeof(rule -> 0) WHEN 'string' THEN 'word' ELSE 'objects' END ELSE 'object' END;
	type text := pg_catalog.jsonb_typeof(given);
	as_text text := given #>> '{}';
	elements jsonb := CASE type WHEN 'array' THEN given ELSE '[]' END;
	members jsonb := CASE type WHEN 'object' THEN given ELSE '{}' END;
	unknown text;
BEGIN
	CASE kind
	WHEN 'object' THEN
		RETURN CASE WHEN type <> 'object' THEN 'expected an object' END;
	WHEN 'objects' THEN
		RETURN CASE WHEN type <> 'array' OR given = '[]' OR EXISTS (SELECT FROM pg_catalog.jsonb_array_elements(elements) e
			WHERE pg_catalog.jsonb_typeof(e) <> 'object') THEN 'expected an array of objects' END;
	WHEN 'word' THEN
		RETURN CASE WHEN type <> 'string' OR NOT rule @> given THEN 'expected one of '
			|| (SELECT pg_catalog.string_agg(w, ', ') FROM pg_catalog.jsonb_array_elements_text(rule) w) END;
	WHEN 'boolean' THEN
		RETURN CASE WHEN type <> 'boolean' THEN 'expected true or false' END;
	WHEN 'count' THEN
		RETURN CASE WHEN type <> 'number' OR as_text !~ '^[1-9][0-9]{0,5}$' THEN 'expected a whole number above zero' END;
	WHEN 'value' THEN
		RETURN CASE WHEN type NOT IN ('null', 'string') THEN 'expected null or a text' END;
	WHEN 'counts' THEN
		RETURN CASE WHEN type <> 'array' OR EXISTS (SELECT FROM pg_catalog.jsonb_array_elements(elements) e
			WHERE pg_catalog.jsonb_typeof(e) <> 'number') THEN 'expected an array of numbers' END;
	WHEN 'texts' THEN
		RETURN CASE WHEN type <> 'array' OR EXISTS (SELECT FROM pg_catalog.jsonb_array_elements(elements) e
			WHERE pg_catalog.jsonb_typeof(e) <> 'string' OR e = '""') THEN 'expected an array of texts' END;
	WHEN 'hosts' THEN
		RETURN CASE WHEN type <> 'array' OR EXISTS (SELECT FROM pg_catalog.jsonb_array_elements(elements) e
			WHERE pg_catalog.jsonb_typeof(e) <> 'string' OR e #>> '{}' !~ '^([*][.])?[a-z0-9-]+([.][a-z0-9-]+)*(:[0-9]{1,5})?$'
				OR e #>> '{}' ~ '^[*][.][^.]*$')
			THEN 'expected an array of hosts, such as "p1.dav.example" or "*.dav.example"' END;
	WHEN 'texts by name' THEN
		RETURN CASE WHEN type <> 'object' OR EXISTS (SELECT FROM pg_catalog.jsonb_each(members) e
			WHERE pg_catalog.jsonb_typeof(e.value) <> 'string' OR e.key !~ '^[a-z_]+$' OR e.value #>> '{}' ~ '[[:cntrl:]]')
			THEN 'expected an object of texts, named by lower-case letters and "_"' END;
	WHEN 'templates' THEN
		IF type <> 'object' OR EXISTS (SELECT FROM pg_catalog.jsonb_each(members) e
			WHERE pg_catalog.jsonb_typeof(e.value) NOT IN ('string', 'number') OR e.value #>> '{}' ~ '[[:cntrl:]]') THEN
			RETURN 'expected an object of texts';
		END IF;
		as_text := given::text;
	WHEN 'body' THEN
		as_text := given::text;
	ELSE
		IF type <> 'string' THEN
			RETURN 'expected a text';
		END IF;
	END CASE;
	IF kind IN ('template', 'templates', 'body') THEN
		SELECT m.found[1] INTO unknown FROM pg_catalog.regexp_matches(as_text, '\{([a-z_]+)\}', 'g') AS m (found)
		WHERE m.found[1] <> ALL (variables) LIMIT 1;
		RETURN 'there is no variable {' || unknown || '}';
	ELSIF kind = 'url' THEN
		RETURN CASE WHEN as_text !~ '^https://[^/@?#\s]+(/[^?#\s]*)?$' THEN 'expected an https URL' END;
	ELSIF kind = 'path' THEN
		BEGIN
			PERFORM as_text::pg_catalog.jsonpath;
		EXCEPTION WHEN syntax_error OR invalid_text_representation THEN
			RETURN 'expected an SQL/JSON path';
		END;
	ELSIF kind = 'interval' THEN
		BEGIN
			RETURN CASE WHEN as_text::interval < interval '0' THEN 'expected an interval' END;
		EXCEPTION WHEN invalid_datetime_format OR datetime_field_overflow OR interval_field_overflow THEN
			RETURN 'expected an interval';
		END;
	END IF;
	RETURN NULL;
END
$$;

-- What a step needs, and does not have; NULL = nothing.
CREATE FUNCTION contactsync._missing_in_step(step jsonb, item jsonb) RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	WITH s AS (SELECT coalesce(step #>> '{page,style}', CASE WHEN step #> '{page,next}' IS NOT NULL THEN 'cursor' ELSE 'none' END) AS style)
	SELECT m.path FROM s, LATERAL (VALUES
		('path', step -> 'path' IS NULL),
		('items', step -> 'items' IS NULL),
		('item.id', coalesce(step #> '{item,id}', item -> 'id') IS NULL),
		('page.next', s.style IN ('cursor', 'url') AND step #> '{page,next}' IS NULL),
		('page.key', s.style = 'keyset' AND step #> '{page,key}' IS NULL),
		('page.start', s.style = 'offset' AND coalesce(step #>> '{page,start}', '') !~ '^[0-9]{1,9}$'),
		('token.next', step -> 'token' IS NOT NULL AND step #> '{token,next}' IS NULL),
		('fetch.path', step -> 'fetch' IS NOT NULL AND step #> '{fetch,path}' IS NULL),
		('fetch.unless', step -> 'fetch' IS NOT NULL AND step #> '{fetch,unless}' IS NULL),
		-- a page that is asked for by its position needs a place for it in the request
		('page.param', s.style IN ('cursor', 'offset', 'keyset') AND step #> '{page,param}' IS NULL AND step::text !~ '\{after\}')) m (path, missing)
	WHERE m.missing LIMIT 1
$$;

-- The values that a mapping, or a template that is filled, tells: known ways to tell them, and paths that are such.
CREATE FUNCTION contactsync._check_values(at text, given jsonb, ways text[]) RETURNS void
	LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
	bad text;
	e record;
BEGIN
	SELECT k.key INTO bad FROM pg_catalog.jsonb_path_query(given, 'strict $.** ? (@.type() == "object")') o, pg_catalog.jsonb_object_keys(o) k (key)
	WHERE k.key LIKE '$%' AND k.key <> ALL (ways) LIMIT 1;
	IF bad IS NOT NULL THEN
		RAISE EXCEPTION 'invalid connector: there is no "%"', bad USING ERRCODE = 'invalid_parameter_value', DETAIL = 'JSON path: ' || at,
			HINT = 'Values may be told by $value, $date, $date_parts, $join and $first, lists by $each and $split, and the rest of metadata by $rest.';
	END IF;
	FOR e IN SELECT p #>> '{}' AS path FROM pg_catalog.jsonb_path_query(given, 'strict $.** ? (@.type() == "string" && @ starts with "$")') p LOOP
		BEGIN
			PERFORM e.path::pg_catalog.jsonpath;
		EXCEPTION WHEN syntax_error OR invalid_text_representation THEN
			RAISE EXCEPTION 'invalid connector: "%" is no SQL/JSON path', e.path USING ERRCODE = 'invalid_parameter_value', DETAIL = 'JSON path: ' || at;
		END;
	END LOOP;
END
$$;

-- What needs what in "write", once each member is known.
CREATE FUNCTION contactsync._check_write(write jsonb) RETURNS void
	LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
	bad text;
	e record;
BEGIN
	FOR e IN SELECT o.name, write -> o.name AS operation FROM pg_catalog.unnest(ARRAY['create', 'update', 'delete']) o (name) WHERE write ? o.name LOOP
		IF e.operation -> 'path' IS NULL THEN
			RAISE EXCEPTION 'invalid connector: a member is missing' USING ERRCODE = 'invalid_parameter_value', DETAIL = 'JSON path: $.write.' || e.name || '.path';
		ELSIF e.name <> 'create' AND e.operation::text !~ '[{]id(_path)?[}]' THEN
			RAISE EXCEPTION 'invalid connector: the request does not say which record it is about' USING ERRCODE = 'invalid_parameter_value',
				DETAIL = 'JSON path: $.write.' || e.name, HINT = 'Its path, query or body has to hold {id}, or {id_path} for an id with slashes that stay.';
		END IF;
	END LOOP;
	IF write ? 'fields' = (write ->> 'format' IS NOT DISTINCT FROM 'vcard') THEN
		RAISE EXCEPTION 'invalid connector: % is missing, or of no use', '"fields"' USING ERRCODE = 'invalid_parameter_value', DETAIL = 'JSON path: $.write.fields',
			HINT = 'It says how what is written looks in JSON; a vCard is written as a whole.';
	END IF;
	FOR e IN SELECT f.i - 1 AS i, f.value AS field FROM pg_catalog.jsonb_array_elements(write -> 'fields') WITH ORDINALITY f (value, i) LOOP
		bad := CASE WHEN e.field -> 'body' IS NULL THEN 'body' WHEN e.field -> 'of' IS NULL AND e.field -> 'on' IS NULL THEN 'of' END;
		IF bad IS NOT NULL THEN
			RAISE EXCEPTION 'invalid connector: a member is missing' USING ERRCODE = 'invalid_parameter_value', DETAIL = 'JSON path: $.write.fields[' || e.i || '].' || bad;
		ELSIF pg_catalog.array_position(contactsync._coverage(ARRAY(SELECT pg_catalog.jsonb_array_elements_text(coalesce(e.field -> 'of', '[]')))), NULL) IS NOT NULL THEN
			RAISE EXCEPTION 'invalid connector: no such field' USING ERRCODE = 'invalid_parameter_value', DETAIL = 'JSON path: $.write.fields[' || e.i || '].of';
		END IF;
		PERFORM contactsync._check_values('$.write.fields[' || e.i || '].body', e.field -> 'body', ARRAY['$each', '$value', '$date', '$date_parts', '$join', '$first']);
	END LOOP;
	PERFORM contactsync._check_values('$.write.base', write -> 'base', ARRAY['$each', '$value', '$date', '$date_parts', '$join', '$first']);
END
$$;

-- Every member is known, and of its kind; then what needs what.
CREATE FUNCTION contactsync._check_connector(spec jsonb) RETURNS void
	LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
	bad text;
	variables text[] := ARRAY['since', 'now', 'after', 'token', 'id', 'id_path'];
	parameters text[] := '{}';
	e record;
BEGIN
	IF spec IS NULL OR pg_catalog.jsonb_typeof(spec) <> 'object' OR NOT coalesce(spec ->> 'driver' IN ('canonical', 'rest', 'carddav'), false) THEN
		RAISE EXCEPTION 'invalid connector: the driver must be "rest", "carddav" or "canonical"' USING ERRCODE = 'invalid_parameter_value',
			DETAIL = 'JSON path: $.driver';
	END IF;
	IF spec ? 'partitions' THEN
		variables := variables || 'partition'::text;
	END IF;
	IF pg_catalog.jsonb_typeof(spec -> 'parameters') = 'object' THEN
		parameters := ARRAY(SELECT pg_catalog.jsonb_object_keys(spec -> 'parameters'));
	END IF;
	FOR e IN
		WITH RECURSIVE walk AS (
			SELECT '$' AS at, spec AS given, contactsync._connector_rules() AS rule
			UNION ALL
			SELECT m.at, m.given, m.rule FROM walk w, LATERAL (
				SELECT w.at || '.' || o.key AS at, o.value AS given, w.rule -> o.key AS rule
				FROM pg_catalog.jsonb_each(CASE pg_catalog.jsonb_typeof(w.given) WHEN 'object' THEN w.given ELSE '{}' END) o
				WHERE pg_catalog.jsonb_typeof(w.rule) = 'object'
				UNION ALL
				SELECT w.at || '[' || (a.i - 1) || ']', a.value, w.rule -> 0
				FROM pg_catalog.jsonb_array_elements(CASE pg_catalog.jsonb_typeof(w.given) WHEN 'array' THEN w.given ELSE '[]' END)
					WITH ORDINALITY a (value, i)
				WHERE pg_catalog.jsonb_typeof(w.rule -> 0) = 'object') m)
		SELECT * FROM walk WHERE at <> '$'
	LOOP
		bad := CASE WHEN e.rule IS NULL THEN 'unknown member' ELSE contactsync._check_member(e.rule, e.given,
			CASE WHEN e.at LIKE '$.write.%' THEN ARRAY['id', 'id_path', 'base_version', 'external_id', 'fields', 'body'] || parameters ELSE variables || parameters END) END;
		IF bad IS NOT NULL THEN
			RAISE EXCEPTION 'invalid connector: %', bad USING ERRCODE = 'invalid_parameter_value', DETAIL = 'JSON path: ' || e.at;
		END IF;
	END LOOP;
	IF NOT contactsync._is_webhook_scheme(spec #>> '{webhook,scheme}') THEN
		RAISE EXCEPTION 'invalid connector: unknown webhook scheme' USING ERRCODE = 'invalid_parameter_value',
			DETAIL = 'JSON path: $.webhook.scheme', HINT = 'Schemes are standard and github.';
	END IF;
	FOREACH bad IN ARRAY ARRAY['list', 'changes', 'partitions', 'get'] LOOP
		IF spec ->> 'driver' <> 'rest' AND spec ? bad THEN
			RAISE EXCEPTION 'invalid connector: only the driver "rest" takes steps' USING ERRCODE = 'invalid_parameter_value',
				DETAIL = 'JSON path: $.' || bad;
		END IF;
	END LOOP;
	bad := CASE WHEN spec -> 'get' IS NULL THEN NULL
		WHEN spec #> '{get,path}' IS NULL THEN '$.get.path'
		WHEN coalesce(spec #> '{get,item,id}', spec #> '{item,id}') IS NULL THEN '$.item.id' END;
	IF bad IS NOT NULL THEN
		RAISE EXCEPTION 'invalid connector: a member is missing' USING ERRCODE = 'invalid_parameter_value', DETAIL = 'JSON path: ' || bad;
	ELSIF (spec -> 'get')::text !~ '[{]id(_path)?[}]' THEN
		RAISE EXCEPTION 'invalid connector: the step does not say which record it is about' USING ERRCODE = 'invalid_parameter_value',
			DETAIL = 'JSON path: $.get', HINT = 'Its path, query or body has to hold {id}, or {id_path} for an id with slashes that stay.';
	END IF;
	FOR e IN
		SELECT '$.list' AS at, coalesce(spec -> 'list', '{}') AS step, spec -> 'item' AS item WHERE spec ->> 'driver' = 'rest'
		UNION ALL
		SELECT '$.partitions', spec -> 'partitions', spec -> 'partitions' WHERE spec ? 'partitions'
		UNION ALL
		SELECT '$.changes[' || (a.i - 1) || ']', a.value, spec -> 'item' FROM pg_catalog.jsonb_array_elements(spec -> 'changes') WITH ORDINALITY a (value, i)
	LOOP
		bad := contactsync._missing_in_step(e.step, e.item);
		IF bad IS NOT NULL THEN
			RAISE EXCEPTION 'invalid connector: a member is missing' USING ERRCODE = 'invalid_parameter_value',
				DETAIL = 'JSON path: ' || CASE WHEN bad <> 'item.id' THEN e.at || '.' || bad WHEN e.at = '$.partitions' THEN e.at || '.id' ELSE '$.' || bad END;
		END IF;
	END LOOP;
	FOR e IN SELECT m.key, m.value FROM pg_catalog.jsonb_each(spec -> 'map') m LOOP
		IF e.key <> ALL (ARRAY['first_name', 'middle_name', 'last_name', 'prefix', 'suffix', 'nickname', 'company', 'department',
				'title', 'birthday', 'note', 'photo', 'emails', 'phones', 'addresses', 'urls', 'tags', 'metadata'])
			OR pg_catalog.jsonb_typeof(e.value) <> ALL (CASE
				WHEN e.key = 'metadata' THEN ARRAY['object']
				WHEN e.key IN ('emails', 'phones', 'addresses', 'urls', 'tags') THEN ARRAY['array'] ELSE ARRAY['string', 'array', 'object'] END)
			OR (pg_catalog.jsonb_typeof(e.value) = 'object' AND e.key <> 'metadata' AND NOT e.value ?| ARRAY['$value', '$date', '$join', '$first']) THEN
			RAISE EXCEPTION 'invalid connector: no such field, or not of its form' USING ERRCODE = 'invalid_parameter_value',
				DETAIL = 'JSON path: $.map.' || e.key,
				HINT = 'A single field is mapped by a path or an array of them, a list by an array of templates, metadata by an object of paths.';
		END IF;
	END LOOP;
	IF pg_catalog.jsonb_typeof(spec #> '{map,metadata,$rest}') <> 'object' THEN
		RAISE EXCEPTION 'invalid connector: expected an object' USING ERRCODE = 'invalid_parameter_value', DETAIL = 'JSON path: $.map.metadata.$rest';
	END IF;
	FOR e IN SELECT r.key, CASE WHEN rule.key IS NULL THEN 'unknown member' ELSE contactsync._check_member(rule.value, r.value, NULL) END AS fault FROM pg_catalog.jsonb_each(spec #> '{map,metadata,$rest}') r
		LEFT JOIN pg_catalog.jsonb_each('{"prefix": "text", "of": "path", "except": "texts"}') rule ON rule.key = r.key
		WHERE rule.key IS NULL OR contactsync._check_member(rule.value, r.value, NULL) IS NOT NULL LIMIT 1
	LOOP
		RAISE EXCEPTION 'invalid connector: %', e.fault USING ERRCODE = 'invalid_parameter_value',
			DETAIL = 'JSON path: $.map.metadata.$rest.' || e.key;
	END LOOP;
	PERFORM contactsync._check_values('$.map', spec -> 'map', ARRAY['$each', '$split', '$value', '$date', '$date_parts', '$join', '$first', '$rest']);
	IF spec ? 'write' THEN
		PERFORM contactsync._check_write(spec -> 'write');
	END IF;
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

CREATE FUNCTION contactsync._page_events(spec jsonb, sample jsonb, step integer)
	RETURNS TABLE (item integer, source_id text, version timestamptz, kind text, payload jsonb, fault text, next text)
	LANGUAGE C STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'sync_test_connector_sql';
CREATE FUNCTION contactsync._test_connector(connector text, sample jsonb, step integer)
	RETURNS TABLE (item integer, source_id text, version timestamptz, kind text, contact contactsync.contact, fault text, next text)
	LANGUAGE plpgsql STABLE PARALLEL RESTRICTED AS $$
#variable_conflict use_column
DECLARE
	spec jsonb := contactsync._connector(connector);
	e record;
BEGIN
	IF spec IS NULL THEN
		RAISE EXCEPTION 'connector "%" does not exist', connector USING ERRCODE = 'undefined_object',
			HINT = 'See contactsync.connectors.';
	ELSIF spec ->> 'driver' <> 'rest' THEN
		RAISE EXCEPTION 'connector "%" does not read JSON', connector USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Its driver is not "rest": see contactsync.map().';
	END IF;
	FOR e IN SELECT x.* FROM contactsync._page_events(spec, sample, coalesce(step, 0)) x LOOP
		item := e.item; source_id := e.source_id; version := e.version; kind := e.kind; fault := e.fault; next := e.next;
		contact := NULL;
		IF e.kind IN ('snapshot', 'patch') AND e.payload IS NOT NULL THEN
			BEGIN
				contact := contactsync._map(connector, e.payload);
			EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
				fault := SQLERRM;
			END;
		END IF;
		RETURN NEXT;
	END LOOP;
END
$$;
CREATE FUNCTION contactsync.test_connector(connector text, sample jsonb, step integer DEFAULT 0)
	RETURNS TABLE (item integer, source_id text, version timestamptz, kind text, contact contactsync.contact, fault text, next text)
	LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.test_connector(text, jsonb, integer) IS
	'What a page of a provider becomes: its events, the contact that each maps to, and where the next page is. step: 0 = list, 1 = the first of changes, and so on, -1 = partitions. Changes nothing. Errors: 42704 unknown connector, 22023 no such step, 08P01 the sample is no page.';

GRANT EXECUTE ON FUNCTION contactsync.add_connector(text, jsonb) TO contactsync_admin;
GRANT EXECUTE ON FUNCTION contactsync.map(text, jsonb), contactsync.test_connector(text, jsonb, integer) TO contactsync_admin, contactsync_app;
