-- The sources that use connectors, and their secrets.

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
			WHEN s.key IN ('webhook', 'duplicates') THEN s.type = 'boolean'
			WHEN s.key = 'identity' THEN s.type = 'object' AND NOT EXISTS (
				SELECT FROM pg_catalog.jsonb_each(CASE s.type WHEN 'object' THEN s.value ELSE '{}' END) i
				WHERE i.key !~ '^metadata[.].' OR i.value <> '"exclusive"')
			WHEN driver = 'canonical' THEN false
			WHEN s.key = 'url' THEN s.type = 'string' AND s.value #>> '{}' ~ '^https?://[^/@?#\s]+(/[^?#\s]*)?$'
			WHEN s.key IN ('allow_private', 'allow_http') THEN s.type = 'boolean'
			WHEN s.key = 'trusted_hosts' THEN contactsync._check_member('"hosts"', s.value, NULL) IS NULL
			WHEN s.key = 'poll' THEN s.type = 'string' OR s.value = 'false'
			WHEN s.key = 'parameters' THEN contactsync._check_member('"texts by name"', s.value, NULL) IS NULL
			WHEN s.key = 'token_url' THEN s.type = 'string' AND s.value #>> '{}' ~ '^(https?://[^/@?#\s]+)?(/[^?#\s]*)?$'
			WHEN s.key = 'rate' THEN s.value = 'false' OR s.type = 'object' AND s.value - 'requests' - 'per' = '{}'
				AND coalesce(contactsync._check_member('"count"', s.value -> 'requests', NULL), contactsync._check_member('"interval"', s.value -> 'per', NULL)) IS NULL
				AND s.value ? 'requests' AND s.value ? 'per'
			WHEN s.key = 'scope' THEN s.type = 'string'
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
				HINT = CASE driver WHEN 'canonical' THEN 'The connector knows class (a text that set_policy() can name in place of the source), webhook and duplicates (booleans) and identity (an object: see set_identity_policy()).'
					ELSE 'Settings are url (without user, query or fragment), class, poll (an interval of a second or more, or false), webhook, allow_private, allow_http and duplicates (booleans), identity (an object: see set_identity_policy()), write (an array of fields or sets of them), parameters (an object of texts), rate ({"requests": n, "per": interval} or false), token_url and scope (of OAuth), trusted_hosts (an array of hosts, such as "*.dav.example").' END;
		END IF;
	END LOOP;
	IF driver <> 'canonical' THEN
		IF settings -> 'url' IS NULL THEN
			RAISE EXCEPTION 'setting "url" is missing' USING ERRCODE = 'invalid_parameter_value';
		ELSIF (settings ->> 'url' LIKE 'http:%' OR settings ->> 'token_url' LIKE 'http:%') AND NOT coalesce((settings -> 'allow_http')::boolean, false) THEN
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

-- The settings of a source as they are kept, if they and its secrets are such as its connector knows.
CREATE FUNCTION contactsync._checked_settings(connector text, settings jsonb, secret jsonb) RETURNS jsonb
	LANGUAGE plpgsql STABLE PARALLEL RESTRICTED AS $$
DECLARE
	spec jsonb := contactsync._connector(connector);
	unknown text;
BEGIN
	IF spec ->> 'driver' IS NULL THEN
		RAISE EXCEPTION 'connector "%" does not exist', connector USING ERRCODE = 'undefined_object',
			HINT = 'Shipped are "canonical" (payloads in the JSON form of contactsync.contact, pushed by ingest()), "carddav", "fastmail", "google", "graph", "hubspot", "icloud", "rest", "salesforce" and "scim"; add_connector() makes others.';
	END IF;
	IF pg_catalog.jsonb_typeof(secret) = 'object' AND (secret ? 'client_certificate') <> (secret ? 'client_key') THEN
		RAISE EXCEPTION 'a client certificate and its key go together' USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Give both, client_certificate and client_key.';
	END IF;
	FOR unknown IN SELECT k FROM pg_catalog.jsonb_object_keys(CASE pg_catalog.jsonb_typeof(secret) WHEN 'object' THEN secret ELSE '{}' END) k
		WHERE k NOT IN ('token', 'username', 'password', 'webhook', 'api_key', 'client_id', 'client_secret', 'refresh_token',
			'private_key', 'service_account', 'ca', 'client_certificate', 'client_key') LOOP
		RAISE EXCEPTION 'a source has no use for a secret of this name' USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Names are token (bearer), username and password (basic), api_key, client_id and client_secret, refresh_token, service_account or private_key (OAuth), webhook, and for TLS ca, client_certificate and client_key.';
	END LOOP;
	-- where the connector knows one, a source need not say it
	IF spec -> 'url' IS NOT NULL AND pg_catalog.jsonb_typeof(settings) = 'object' THEN
		settings := pg_catalog.jsonb_build_object('url', spec -> 'url') || settings;
	END IF;
	FOR unknown IN SELECT k FROM pg_catalog.jsonb_object_keys(CASE pg_catalog.jsonb_typeof(settings -> 'parameters') WHEN 'object' THEN settings -> 'parameters' ELSE '{}' END) k
		WHERE NOT coalesce(spec -> 'parameters' ? k, false) LOOP
		RAISE EXCEPTION 'connector "%" has no parameter "%"', connector, unknown USING ERRCODE = 'invalid_parameter_value',
			HINT = coalesce('It has ' || (SELECT pg_catalog.string_agg(k, ', ' ORDER BY k) FROM pg_catalog.jsonb_object_keys(spec -> 'parameters') k) || '.', 'It has none.');
	END LOOP;
	PERFORM contactsync._check_settings(spec ->> 'driver', settings);
	RETURN settings;
END
$$;

CREATE FUNCTION contactsync._add_source(name text, connector text, settings jsonb, secret jsonb) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	known contactsync.sources;
	result bigint;
BEGIN
	PERFORM contactsync._require_active();
	IF name IS NULL OR name = '' OR name = 'decision' THEN
		RAISE EXCEPTION 'a source needs a name' USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Give it a name of your own; "decision" is reserved.';
	END IF;
	settings := contactsync._checked_settings(connector, settings, secret);
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
		IF known.state = 'dropped' AND known.connector = _add_source.connector THEN
			-- its records are there: it is the same source again, read from the start
			PERFORM contactsync._change_source(known, settings);
			UPDATE contactsync.sources s SET state = 'active', created_at = pg_catalog.now()
			WHERE s.tenant_id = contactsync.current_tenant() AND s.name = _add_source.name;
		ELSIF known.connector <> _add_source.connector OR known.settings <> _add_source.settings THEN
			RAISE EXCEPTION 'source "%" exists with other settings', name USING ERRCODE = 'duplicate_object',
				HINT = CASE known.state WHEN 'dropped' THEN 'It was dropped, but its records are kept, and they are of the connector "' || known.connector || '": drop_source(name, ''purge'') removes them.'
					ELSE 'See contactsync.alter_source().' END;
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
	'Make a source known, and return its id; the same call again returns the same id. Settings: class, url, poll, webhook, parameters (of the connector), rate, token_url, scope, trusted_hosts, allow_private, allow_http, write (kept for a version that writes back); secret: token, or username and password, or api_key, or of OAuth client_id, client_secret, refresh_token, service_account, private_key; and webhook; and in PEM ca (the authorities that its servers are trusted by, in place of the system''s), client_certificate with client_key; each a text or {"file": path}. Errors: 42704 unknown connector, 22023 invalid setting or secret, 42710 the name is taken, 55000 dormant copy, or a secret in clear where no key file is set.';

-- A refresh token that the provider has replaced; not if somebody has set another one meanwhile.
CREATE FUNCTION contactsync._rotate_secret(source text, name text, secret text, known_at timestamptz) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$
	UPDATE contactsync.source_secrets s SET sealed = contactsync._seal_secret(_rotate_secret.source, _rotate_secret.name, secret),
		reference = NULL, changed_at = pg_catalog.clock_timestamp()
	WHERE s.tenant_id = contactsync.current_tenant() AND s.source = _rotate_secret.source AND s.name = _rotate_secret.name
		AND s.changed_at = known_at
$$;

CREATE FUNCTION contactsync._rekey_secrets() RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	result integer;
BEGIN
	PERFORM contactsync._require_active();
	PERFORM FROM contactsync.source_secrets s WHERE s.tenant_id = contactsync.current_tenant() FOR UPDATE;
	UPDATE contactsync.source_secrets s SET sealed = n.sealed
	FROM (SELECT x.source, x.name, contactsync._reseal_secret(x.source, x.name, x.sealed) AS sealed FROM contactsync.source_secrets x
		WHERE x.tenant_id = contactsync.current_tenant() AND x.sealed IS NOT NULL) n
	WHERE s.tenant_id = contactsync.current_tenant() AND s.source = n.source AND s.name = n.name AND n.sealed IS NOT NULL;
	GET DIAGNOSTICS result = ROW_COUNT;
	RETURN result;
END
$$;
CREATE FUNCTION contactsync.rekey_secrets() RETURNS integer
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.rekey_secrets() IS
	'Seal every secret of the tenant anew that is not sealed under the first key of contactsync.secret_key_file; returns how many were. The keys after the first only open. Errors: 55000 a secret opens under none of the keys.';

CREATE FUNCTION contactsync._set_source_state(source text, state text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
BEGIN
	PERFORM contactsync._require_active();
	UPDATE contactsync.sources s SET state = _set_source_state.state,
		next_poll_at = CASE WHEN _set_source_state.state = 'active' AND contactsync._poll_interval(s.settings) IS NOT NULL
			THEN pg_catalog.clock_timestamp() END
	WHERE s.tenant_id = contactsync.current_tenant() AND s.name = source AND s.state <> 'dropped';
	IF NOT FOUND THEN
		RAISE EXCEPTION 'source "%" does not exist', source USING ERRCODE = 'undefined_object',
			HINT = 'See contactsync.status.';
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

GRANT EXECUTE ON FUNCTION contactsync.add_source(text, text, jsonb, jsonb),
	contactsync.pause_source(text), contactsync.resume_source(text), contactsync.rekey_secrets() TO contactsync_admin;
