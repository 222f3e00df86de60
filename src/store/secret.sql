-- Credentials of sources.  See secret.c; no function gives a secret back to SQL.

CREATE FUNCTION contactsync._seal_secret(source text, name text, secret text) RETURNS bytea
	LANGUAGE C VOLATILE PARALLEL UNSAFE STRICT AS 'MODULE_PATHNAME', 'secret_seal_sql';
-- NULL where the secret is sealed under the key in force already.
CREATE FUNCTION contactsync._reseal_secret(source text, name text, sealed bytea) RETURNS bytea
	LANGUAGE C VOLATILE PARALLEL UNSAFE STRICT AS 'MODULE_PATHNAME', 'secret_reseal_sql';
CREATE FUNCTION contactsync._check_secret_file(name text, path text) RETURNS text
	LANGUAGE C STABLE PARALLEL UNSAFE STRICT AS 'MODULE_PATHNAME', 'secret_check_file_sql';

-- Replace the secrets of a source; NULL leaves them as they are.
CREATE FUNCTION contactsync._set_secrets(source text, secret jsonb) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	s record;
	sealed bytea;
	reference text;
BEGIN
	IF secret IS NULL THEN
		RETURN;
	END IF;
	IF pg_catalog.jsonb_typeof(secret) <> 'object' THEN
		RAISE EXCEPTION 'secrets must be a JSON object' USING ERRCODE = 'invalid_parameter_value',
			HINT = 'It maps names to texts, to {"file": path}, or to arrays of those.';
	END IF;
	DELETE FROM contactsync.source_secrets t
	WHERE t.tenant_id = contactsync.current_tenant() AND t.source = _set_secrets.source;
	FOR s IN
		SELECT e.key, CASE WHEN a.i > 1 THEN e.key || '.' || a.i ELSE e.key END AS name, a.value
		FROM pg_catalog.jsonb_each(secret) e
		LEFT JOIN LATERAL pg_catalog.jsonb_array_elements(CASE pg_catalog.jsonb_typeof(e.value) WHEN 'array' THEN e.value
			ELSE pg_catalog.jsonb_build_array(e.value) END) WITH ORDINALITY AS a (value, i) ON true
		ORDER BY e.key COLLATE "C", a.i
	LOOP
		-- a dot would be taken for another one's number; a name that is none may be a secret in the wrong place
		IF s.key !~ '^[a-z][a-z0-9_]{0,62}$' THEN
			RAISE EXCEPTION 'invalid name of a secret' USING ERRCODE = 'invalid_parameter_value',
				HINT = 'Names are lower-case letters, digits and "_".';
		END IF;
		sealed := NULL;
		reference := NULL;
		IF pg_catalog.jsonb_typeof(s.value) = 'string' THEN
			sealed := contactsync._seal_secret(source, s.name, s.value #>> '{}');
		ELSIF pg_catalog.jsonb_typeof(s.value) = 'object' AND pg_catalog.jsonb_typeof(s.value -> 'file') = 'string'
			AND s.value - 'file' = '{}' THEN
			reference := contactsync._check_secret_file(s.name, s.value ->> 'file');
		ELSE
			RAISE EXCEPTION 'invalid value of secret "%"', s.key USING ERRCODE = 'invalid_parameter_value',
				HINT = 'A secret is a text, {"file": path}, or a non-empty array of those.';
		END IF;
		INSERT INTO contactsync.source_secrets (tenant_id, source, name, reference, sealed)
		VALUES (contactsync.current_tenant(), _set_secrets.source, s.name, reference, sealed);
	END LOOP;
END
$$;
