-- What a write to a provider would be: data, from a connector's templates.

CREATE FUNCTION contactsync._fill(template jsonb, data jsonb, empty jsonb) RETURNS jsonb
	LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'sync_fill_sql';
CREATE FUNCTION contactsync._render(operation jsonb, base text, vars jsonb, parameters jsonb, own jsonb, content text,
	OUT url text, OUT headers jsonb, OUT body text)
	LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'sync_render_sql';

-- One object with what is in the other, in its depth, too.
CREATE FUNCTION contactsync._deep_concat(a jsonb, b jsonb) RETURNS jsonb
	LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	SELECT CASE WHEN pg_catalog.jsonb_typeof(a) <> 'object' OR pg_catalog.jsonb_typeof(b) <> 'object' THEN b
		ELSE a || coalesce((SELECT pg_catalog.jsonb_object_agg(e.key, CASE WHEN a ? e.key THEN contactsync._deep_concat(a -> e.key, e.value) ELSE e.value END)
			FROM pg_catalog.jsonb_each(b) e), '{}') END
$$;

-- A field, or a key of metadata, of a contact as JSON; NULL = it has none.
CREATE FUNCTION contactsync._field_value(contact jsonb, field text) RETURNS jsonb
	LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	SELECT CASE WHEN field LIKE 'metadata.%' THEN contact -> 'metadata' -> pg_catalog.substr(field, 10) ELSE contact -> field END
$$;
CREATE FUNCTION contactsync._set_field(contact jsonb, field text, value jsonb) RETURNS jsonb
	LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	SELECT CASE WHEN field LIKE 'metadata.%' THEN contact || pg_catalog.jsonb_build_object('metadata',
			CASE WHEN value IS NULL THEN coalesce(contact -> 'metadata', '{}') - pg_catalog.substr(field, 10)
			ELSE coalesce(contact -> 'metadata', '{}') || pg_catalog.jsonb_build_object(pg_catalog.substr(field, 10), value) END)
		WHEN value IS NULL THEN contact - field ELSE contact || pg_catalog.jsonb_build_object(field, value) END
$$;

-- What is wanted and would not be there: elements, whatever type they are of there, else the whole field.
CREATE FUNCTION contactsync._not_written(wanted jsonb, there jsonb) RETURNS jsonb
	LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	SELECT CASE WHEN pg_catalog.jsonb_typeof(wanted) = 'array' THEN NULLIF(coalesce((SELECT pg_catalog.jsonb_agg(w) FROM pg_catalog.jsonb_array_elements(wanted) w
			WHERE NOT EXISTS (SELECT FROM pg_catalog.jsonb_array_elements(coalesce(there, '[]')) t
				WHERE CASE WHEN pg_catalog.jsonb_typeof(w) = 'object' THEN t @> (w - ARRAY['primary', 'verified', 'type', 'extension']) ELSE t = w END)), '[]'), '[]')
		WHEN wanted IS DISTINCT FROM there THEN wanted END
$$;

-- All fields that may be written, groups and sets of them spelt out.
CREATE FUNCTION contactsync._spelt_fields(fields text[]) RETURNS text[]
	LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	SELECT pg_catalog.array_agg(DISTINCT m.field) FROM pg_catalog.unnest(fields) f (name), LATERAL pg_catalog.unnest(CASE f.name
		WHEN 'name' THEN '{first_name,middle_name,last_name,prefix,suffix}'::text[]
		WHEN 'job' THEN '{company,department,title}'
		WHEN 'business' THEN '{company,department,title}'
		WHEN 'personal' THEN '{emails,phones,addresses,birthday}'
		ELSE ARRAY[f.name] END) m (field)
$$;

CREATE FUNCTION contactsync._render_write(connector text, operation text, contact contactsync.contact, payload jsonb, id text, fields text[], parameters jsonb, base_url text, base_version text)
	RETURNS TABLE (method text, url text, headers jsonb, body text, written text[], lost jsonb)
	LANGUAGE plpgsql STABLE PARALLEL RESTRICTED AS $$
#variable_conflict use_variable
DECLARE
	spec CONSTANT jsonb := contactsync._connector($1);
	write CONSTANT jsonb := spec -> 'write';
	vcard CONSTANT boolean := coalesce(write ->> 'format' = 'vcard', false);
	wanted CONSTANT jsonb := coalesce($3::jsonb - '_provenance', '{}');
	had jsonb;
	asked text[] := contactsync._spelt_fields($6);
	units jsonb;
	document jsonb := '{}';
	there jsonb;
	content text;
	unknown text;
	r record;
BEGIN
	IF spec IS NULL THEN
		RAISE EXCEPTION 'connector "%" does not exist', $1 USING ERRCODE = 'undefined_object', HINT = 'See contactsync.connectors.';
	ELSIF operation IS NULL OR operation NOT IN ('create', 'update', 'delete') THEN
		RAISE EXCEPTION 'unknown operation "%"', coalesce(operation, 'NULL') USING ERRCODE = 'invalid_parameter_value', HINT = 'Operations are create, update and delete.';
	ELSIF NOT coalesce(write ? operation, false) THEN
		RAISE EXCEPTION 'connector "%" has no way to %', $1, operation USING ERRCODE = 'feature_not_supported', HINT = 'See its member "write".';
	ELSIF operation <> 'create' AND coalesce($5, '') = '' THEN
		RAISE EXCEPTION 'the id of the record is needed' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	SELECT a.f INTO unknown FROM pg_catalog.unnest(asked) a (f)
	WHERE pg_catalog.array_position(contactsync._coverage(ARRAY[a.f]), NULL) IS NOT NULL LIMIT 1;
	IF unknown IS NOT NULL THEN
		RAISE EXCEPTION 'unknown field "%"', unknown USING ERRCODE = 'invalid_parameter_value';
	END IF;
	had := CASE WHEN payload IS NOT NULL AND operation <> 'create' THEN contactsync._map($1, payload)::jsonb - '_provenance' END;

	-- which fields: those asked for, else those that differ from what is there
	IF asked IS NULL THEN
		SELECT pg_catalog.array_agg(f.key ORDER BY f.key) INTO asked FROM (
			SELECT k.key FROM pg_catalog.jsonb_object_keys(wanted || coalesce(had, '{}')) k (key) WHERE k.key <> 'metadata'
			UNION SELECT 'metadata.' || k.key FROM pg_catalog.jsonb_object_keys(coalesce(wanted -> 'metadata', '{}')) k (key)) f (key)
		WHERE operation = 'create' OR had IS NULL OR contactsync._field_value(wanted, f.key) IS DISTINCT FROM contactsync._field_value(had, f.key);
	END IF;
	IF operation = 'delete' THEN
		asked := '{}';
		written := '{}';
	ELSIF vcard THEN
		-- a card is written as a whole: what was in it stays
		there := coalesce(had, '{}');
		FOR r IN SELECT a.f FROM pg_catalog.unnest(asked) a (f) LOOP
			there := contactsync._set_field(there, r.f, contactsync._field_value(wanted, r.f));
		END LOOP;
		IF operation = 'create' THEN
			there := contactsync._set_field(there, 'metadata.uid', pg_catalog.to_jsonb($5));
		ELSIF payload #>> '{}' ~* '\nUID[:;]' THEN
			there := contactsync._set_field(there, 'metadata.uid', pg_catalog.to_jsonb((pg_catalog.regexp_match(payload #>> '{}', '\nUID[^:\r\n]*:([^\r\n]*)', 'i'))[1]));
		END IF;
		content := contactsync.to_vcard(there::contactsync.contact, CASE WHEN payload #>> '{}' ~* 'VERSION:4' THEN '4.0' ELSE '3.0' END);
		written := asked;
		there := contactsync._map($1, pg_catalog.to_jsonb(content))::jsonb - '_provenance';
	ELSE
		SELECT pg_catalog.jsonb_agg(f.value ORDER BY f.i), pg_catalog.array_agg(o.name ORDER BY o.name) FILTER (WHERE o.name IS NOT NULL)
		INTO units, written
		FROM pg_catalog.jsonb_array_elements(write -> 'fields') WITH ORDINALITY f (value, i)
		LEFT JOIN LATERAL pg_catalog.jsonb_array_elements_text(f.value -> 'of') o (name) ON true
		WHERE CASE WHEN f.value ? 'on' AND operation <> f.value ->> 'on' THEN false
			WHEN f.value -> 'of' IS NULL THEN true
			ELSE EXISTS (SELECT FROM pg_catalog.jsonb_array_elements_text(f.value -> 'of') n (name) WHERE n.name = ANY (asked)) END;
		FOR r IN SELECT DISTINCT ON (u.value) u.value, u.i FROM pg_catalog.jsonb_array_elements(units) WITH ORDINALITY u (value, i) ORDER BY u.value, u.i LOOP
			document := contactsync._deep_concat(document, contactsync._fill(r.value -> 'body', wanted,
				CASE operation WHEN 'update' THEN coalesce(write -> 'empty', 'null') END));
		END LOOP;
		there := contactsync._map($1, document)::jsonb - '_provenance';
		IF operation = 'update' AND write ? 'base' THEN
			document := contactsync._deep_concat(document, contactsync._fill(write -> 'base', coalesce(payload, '{}'), NULL));
		END IF;
		content := document::text;
	END IF;
	written := ARRAY(SELECT DISTINCT w.f FROM pg_catalog.unnest(written) w (f) ORDER BY w.f);
	SELECT NULLIF(coalesce(pg_catalog.jsonb_object_agg(a.f, n.lost), '{}'), '{}') INTO lost
	FROM pg_catalog.unnest(asked) a (f), LATERAL (SELECT CASE WHEN a.f = ANY (written)
		THEN contactsync._not_written(contactsync._field_value(wanted, a.f), contactsync._field_value(there, a.f))
		ELSE coalesce(contactsync._field_value(wanted, a.f), 'null') END) n (lost) WHERE n.lost IS NOT NULL;

	IF base_version IS NULL THEN
		base_version := (SELECT v #>> '{}' FROM pg_catalog.jsonb_path_query_first(payload, (write ->> 'version')::jsonpath, '{}', true) v
			WHERE pg_catalog.jsonb_typeof(v) IN ('string', 'number'));
	END IF;
	IF write ->> 'version_format' = 'http_date' THEN
		base_version := pg_catalog.to_char(contactsync._webhook_time(pg_catalog.to_jsonb(base_version)) AT TIME ZONE 'UTC', 'Dy, DD Mon YYYY HH24:MI:SS "GMT"');
	END IF;
	SELECT x.* INTO r FROM contactsync._render(write -> operation, coalesce(pg_catalog.rtrim($8, '/'), spec ->> 'url', ''),
		pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object('id', $5, 'body', '{body}', 'base_version', base_version,
			'external_id', CASE operation WHEN 'create' THEN $5 END,
			'fields', (SELECT pg_catalog.string_agg(DISTINCT u.value ->> 'name', ',' ) FROM pg_catalog.jsonb_array_elements(units) u (value)))),
		spec -> 'parameters', $7, CASE WHEN operation <> 'delete' OR write #> '{delete,body}' IS NOT NULL THEN coalesce(content, '{}') END) x;
	IF r.url IS NULL THEN
		RAISE EXCEPTION 'a variable in the connector''s path has no value' USING ERRCODE = 'invalid_parameter_value', HINT = 'See its "parameters".';
	END IF;
	method := coalesce(write -> operation ->> 'method', CASE operation WHEN 'create' THEN 'POST' WHEN 'update' THEN 'PATCH' ELSE 'DELETE' END);
	url := r.url;
	headers := CASE WHEN r.body IS NULL THEN '{}' WHEN vcard THEN '{"Content-Type": "text/vcard; charset=utf-8"}' ELSE '{"Content-Type": "application/json"}' END::jsonb || r.headers;
	body := r.body;
	RETURN NEXT;
END
$$;
CREATE FUNCTION contactsync.render_write(connector text, operation text, contact contactsync.contact, payload jsonb DEFAULT NULL, id text DEFAULT NULL,
	fields text[] DEFAULT NULL, parameters jsonb DEFAULT NULL, base_url text DEFAULT NULL, base_version text DEFAULT NULL)
	RETURNS TABLE (method text, url text, headers jsonb, body text, written text[], lost jsonb)
	LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.render_write(text, text, contactsync.contact, jsonb, text, text[], jsonb, text, text) IS
	'The request by which a contact would be written to a provider: operation create, update or delete of the record id, whose last known payload is given, and base_version, where the payload does not tell it. fields: which are to be written (NULL = those that differ from the payload, or all). written: which are; lost: what of them the provider could not hold. Sends nothing, and changes nothing. Errors: 42704 unknown connector, 0A000 it has no such operation, 22023.';
GRANT EXECUTE ON FUNCTION contactsync.render_write(text, text, contactsync.contact, jsonb, text, text[], jsonb, text, text) TO contactsync_admin, contactsync_app;
