-- Files of contacts as reads of a source: what it held when the file was written.

CREATE FUNCTION contactsync._file_cards(content bytea) RETURNS TABLE (raw text, uid text, contact contactsync.contact, ended boolean)
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'contact_vcard_cards';

-- What kind of file it is, by how it begins.
CREATE FUNCTION contactsync._file_format(content bytea) RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	SELECT CASE WHEN b ~* '^BEGIN:VCARD' THEN 'vcard' WHEN b ~ '^[\[{]' THEN 'json' ELSE 'csv' END
	-- less a byte order mark, and the zeros of UTF-16
	FROM pg_catalog.regexp_replace(pg_catalog.encode(pg_catalog.substr(content, 1, 200), 'escape'), '^(\\357\\273\\277|\\377\\376|\\376\\377)|\\000|\s', '', 'g') b
$$;

-- The documents of a JSON file: of an array, of one document, or of one a line; a line that is none comes as its text.
CREATE FUNCTION contactsync._file_documents(content bytea) RETURNS TABLE (document jsonb, fault text)
	LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
	whole text := pg_catalog.ltrim(pg_catalog.convert_from(content, 'UTF8'), E'\ufeff \t\r\n');
	line text;
BEGIN
	IF whole LIKE '[%' THEN
		RETURN QUERY SELECT e.value, NULL::text FROM pg_catalog.jsonb_array_elements(whole::jsonb) e;
		RETURN;
	END IF;
	IF whole !~ '\}\s*\n\s*\{' THEN
		BEGIN
			document := whole::jsonb;
			RETURN NEXT;
			RETURN;
		EXCEPTION WHEN data_exception THEN
			NULL;
		END;
	END IF;
	FOR line IN SELECT l FROM pg_catalog.string_to_table(whole, E'\n') l WHERE l !~ '^\s*$' LOOP
		fault := NULL;
		BEGIN
			document := line::jsonb;
		EXCEPTION WHEN data_exception THEN
			document := pg_catalog.to_jsonb(line);
			fault := 'the line is not JSON';
		END;
		RETURN NEXT;
	END LOOP;
END
$$;

-- By what a record without an id of its own is known again.
CREATE FUNCTION contactsync._file_key(c contactsync.contact) RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	SELECT coalesce((contactsync.contact_keys(c))[1], 'md5:' || pg_catalog.md5(c::text))
$$;

-- The items of a file: id (NULL = it has none), payload, and what is wrong with it. whole: nothing is missing behind it.
CREATE FUNCTION contactsync._file_items(spec jsonb, content bytea, format text, key text, date_order text)
	RETURNS TABLE (id text, own boolean, kind text, payload jsonb, version jsonb, fault text, whole boolean)
	LANGUAGE plpgsql STABLE PARALLEL RESTRICTED AS $$
#variable_conflict use_column
DECLARE
	mapped CONSTANT boolean := spec ? 'map';
	id_path CONSTANT jsonpath := coalesce(CASE WHEN format = 'json' THEN key END, spec #>> '{item,id}', '$.id')::jsonpath;
	header text[];
	column_of_id integer;
	e record;
	c contactsync.contact;
BEGIN
	kind := 'snapshot';
	IF format = 'vcard' THEN
		FOR e IN SELECT f.* FROM contactsync._file_cards(content) f LOOP
			own := coalesce(e.uid <> '', false);
			id := CASE WHEN own THEN e.uid ELSE contactsync._file_key(e.contact) END;
			payload := coalesce(pg_catalog.to_jsonb(e.raw), e.contact::jsonb);
			whole := e.ended;
			RETURN NEXT;
		END LOOP;
	ELSIF format = 'csv' THEN
		FOR e IN SELECT f.line, f.i FROM contactsync.csv_lines(content) WITH ORDINALITY f (line, i) LOOP
			IF header IS NULL THEN
				header := e.line;
				SELECT h.i INTO column_of_id FROM pg_catalog.unnest(header) WITH ORDINALITY h (name, i)
				WHERE pg_catalog.lower(h.name) = pg_catalog.lower(key) ORDER BY h.i LIMIT 1;
				IF key IS NOT NULL AND column_of_id IS NULL THEN
					RAISE EXCEPTION 'the file has no column "%"', key USING ERRCODE = 'invalid_parameter_value',
						HINT = 'Its first line names the columns.';
				END IF;
				CONTINUE;
			END IF;
			fault := NULL;
			own := key IS NOT NULL;
			id := e.line[column_of_id];
			-- a line that was cut off; more of it may be missing
			whole := pg_catalog.cardinality(e.line) >= pg_catalog.cardinality(header)
				OR pg_catalog.get_byte(content, pg_catalog.octet_length(content) - 1) IN (0, 10, 13);
			BEGIN
				IF mapped THEN
					payload := (SELECT pg_catalog.jsonb_object_agg(coalesce(h.name, 'column_' || h.i), h.value)
						FROM ROWS FROM (pg_catalog.unnest(header), pg_catalog.unnest(e.line)) WITH ORDINALITY h (name, value, i));
					id := CASE WHEN own THEN id ELSE 'md5:' || pg_catalog.md5(payload::text) END;
				ELSE
					c := contactsync.contact_from_csv(header, e.line, date_order);
					payload := c::jsonb;
					id := CASE WHEN own THEN id ELSE contactsync._file_key(c) END;
				END IF;
			EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
				fault := SQLERRM;
				payload := pg_catalog.to_jsonb(e.line);
			END;
			RETURN NEXT;
		END LOOP;
	ELSE
		whole := true;
		FOR e IN SELECT d.* FROM contactsync._file_documents(content) d LOOP
			fault := e.fault;
			payload := e.document;
			id := (SELECT i #>> '{}' FROM pg_catalog.jsonb_path_query_first(e.document, id_path, '{}', true) i
				WHERE pg_catalog.jsonb_typeof(i) IN ('string', 'number'));
			own := coalesce(id <> '', false);
			version := pg_catalog.jsonb_path_query_first(e.document, (spec #>> '{item,version}')::jsonpath, '{}', true);
			kind := CASE WHEN coalesce(pg_catalog.jsonb_path_query_first(e.document, (spec #>> '{item,deleted}')::jsonpath, '{}', true),
				'false') NOT IN ('false', 'null') THEN 'delete' ELSE 'snapshot' END;
			IF spec #> '{item,payload}' IS NOT NULL AND fault IS NULL THEN
				payload := pg_catalog.jsonb_path_query_first(e.document, (spec #>> '{item,payload}')::jsonpath, '{}', true);
				fault := CASE WHEN payload IS NULL THEN 'the item has no payload where the connector looks for it' END;
				payload := coalesce(payload, e.document);
			END IF;
			-- it names the record, and is no part of it
			IF own AND key IS NULL AND NOT mapped AND spec #> '{item,id}' IS NULL THEN
				payload := payload - 'id';
			END IF;
			IF NOT own AND fault IS NULL AND key IS NULL AND NOT mapped THEN
				BEGIN
					id := contactsync._file_key(payload::contactsync.contact);
				EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
					id := NULL;
				END;
			END IF;
			RETURN NEXT;
		END LOOP;
	END IF;
END
$$;

CREATE FUNCTION contactsync._csv_fields(header text[]) RETURNS text[]
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'contact_csv_fields';

-- Some items as events of their run, those before them counted; the last one that waits for process().
CREATE FUNCTION contactsync._store_items(run contactsync.runs, before bigint, ids text[], kinds text[], versions timestamptz[], payloads jsonb[],
	faults text[], coverage text[]) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	result bigint;
BEGIN
	WITH stored AS (
		INSERT INTO contactsync.inbox AS i (source, source_id, kind, version, seq, payload, coverage, sighted, run, failed_at, error_code, error)
		SELECT run.source, u.id, u.kind, coalesce(u.version, run.stamp), CASE WHEN u.version IS NULL THEN before + u.i ELSE 0 END,
			u.payload, CASE u.kind WHEN 'snapshot' THEN _store_items.coverage END, run.stamp, run.id,
			CASE WHEN u.fault IS NOT NULL THEN pg_catalog.clock_timestamp() END, CASE WHEN u.fault IS NOT NULL THEN '22P02' END, u.fault
		FROM ROWS FROM (pg_catalog.unnest(ids), pg_catalog.unnest(kinds), pg_catalog.unnest(versions), pg_catalog.unnest(payloads),
			pg_catalog.unnest(faults)) WITH ORDINALITY AS u (id, kind, version, payload, fault, i)
		ORDER BY u.i RETURNING i.id, i.failed_at)
	SELECT pg_catalog.max(s.id) FILTER (WHERE s.failed_at IS NULL) INTO result FROM stored s;
	INSERT INTO contactsync.source_items AS i (source, source_id, run)
	SELECT DISTINCT run.source, u.id, run.id FROM ROWS FROM (pg_catalog.unnest(ids), pg_catalog.unnest(kinds)) AS u (id, kind)
	WHERE run.kind = 'full' AND u.kind = 'snapshot'
	ON CONFLICT ON CONSTRAINT source_items_pkey DO UPDATE SET run = excluded.run;
	RETURN result;
END
$$;

CREATE FUNCTION contactsync._load_file(source text, content bytea, format text, "full" boolean, key text, version timestamptz, date_order text)
	RETURNS bigint LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
#variable_conflict use_variable
DECLARE
	max_payload CONSTANT bigint := pg_catalog.pg_size_bytes(pg_catalog.current_setting('contactsync.max_payload'));
	digest CONSTANT text := pg_catalog.encode(pg_catalog.sha256(content), 'hex');
	wanted CONSTANT text := CASE WHEN "full" THEN 'full' ELSE 'incremental' END;
	s contactsync.sources;
	spec jsonb;
	r contactsync.runs;
	item record;
	ids text[] := '{}';
	kinds text[] := '{}';
	payloads jsonb[] := '{}';
	versions timestamptz[] := '{}';
	faults text[] := '{}';
	stamp timestamptz;
	total bigint := 0;
	last bigint;
	broken text;
	coverage text[];
BEGIN
	PERFORM contactsync._require_active();
	PERFORM contactsync._require_source(source);
	SELECT x.* INTO s FROM contactsync.sources x
	WHERE x.tenant_id = contactsync.current_tenant() AND x.name = source FOR NO KEY UPDATE;
	spec := contactsync._connector(s.connector);
	IF content IS NULL THEN
		RAISE EXCEPTION 'a file must not be null' USING ERRCODE = 'null_value_not_allowed';
	ELSIF s.settings -> 'url' IS NOT NULL THEN
		RAISE EXCEPTION 'source "%" is read from its provider', source USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'Files are for sources of a connector that reads nothing itself, such as "canonical".';
	ELSIF format IS NOT NULL AND format NOT IN ('vcard', 'csv', 'json') THEN
		RAISE EXCEPTION 'unknown format "%"', format USING ERRCODE = 'invalid_parameter_value', HINT = 'Formats are vcard, csv and json.';
	END IF;
	format := coalesce(format, contactsync._file_format(content));
	IF format = 'vcard' AND (spec ? 'map' OR key IS NOT NULL) THEN
		RAISE EXCEPTION 'a vCard needs neither a mapping nor a key' USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Load it into a source of the connector "canonical"; its UID names the record.';
	ELSIF format = 'json' AND contactsync._check_member('"path"', pg_catalog.to_jsonb(coalesce(key, '$')), NULL) IS NOT NULL THEN
		RAISE EXCEPTION 'the key of a JSON file is an SQL/JSON path' USING ERRCODE = 'invalid_parameter_value', HINT = 'For example $.id.';
	END IF;
	-- the same file again says nothing new; an older one after another does
	SELECT x.* INTO r FROM contactsync.runs x
	WHERE x.tenant_id = contactsync.current_tenant() AND x.source = s.name AND x.cause = 'file' AND x.state = 'succeeded'
		AND (version IS NULL OR x.cursor_after ->> 'sha256' = digest AND x.stamp = version)
	ORDER BY x.id DESC LIMIT 1;
	IF FOUND AND r.cursor_after ->> 'sha256' = digest AND r.kind = wanted THEN
		RETURN r.id;
	END IF;
	IF EXISTS (SELECT FROM contactsync.runs x WHERE x.tenant_id = contactsync.current_tenant() AND x.source = s.name
			AND x.certified AND NOT x.certificate_applied) THEN
		RAISE EXCEPTION 'an earlier file of source "%" is not applied yet', source USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'Call contactsync.process(), or wait for the worker.';
	END IF;
	stamp := LEAST(coalesce(version, 'infinity'), pg_catalog.clock_timestamp());
	INSERT INTO contactsync.runs AS x (source, kind, cause, state, started_at, stamp, attempt)
	VALUES (s.name, wanted, 'file', 'running', pg_catalog.clock_timestamp(), stamp, 1)
	RETURNING x.* INTO r;

	-- a file without a column says nothing of it
	IF format = 'csv' AND NOT spec ? 'map' THEN
		SELECT contactsync._coverage(contactsync._csv_fields(l.line)) INTO coverage FROM contactsync.csv_lines(content) l (line) LIMIT 1;
	END IF;
	FOR item IN
		SELECT f.*, pg_catalog.row_number() OVER (PARTITION BY f.id ORDER BY f.i) AS n,
			pg_catalog.lead(false, 1, true) OVER (ORDER BY f.i) AS is_last
		FROM (SELECT x.*, pg_catalog.row_number() OVER () AS i FROM contactsync._file_items(spec, content, format, key, coalesce(date_order, 'mdy')) x) f
		ORDER BY f.i
	LOOP
		total := total + 1;
		IF coalesce(item.id, '') = '' OR pg_catalog.octet_length(item.id) > 1024 THEN
			item.fault := coalesce(item.fault, CASE WHEN item.id <> '' THEN 'the id of the item is too long' ELSE 'the item has no id' END);
			-- found by its place
			item.id := 'item ' || total;
			broken := coalesce(broken, 'it has an item without an id');
		ELSIF item.n > 1 AND item.own THEN
			item.fault := coalesce(item.fault, 'the id stands in the file more than once');
		ELSIF item.n > 1 THEN
			item.id := item.id || '#' || item.n;
		END IF;
		-- what is left of it would clear what is not
		IF NOT item.whole AND (item.is_last OR format = 'vcard') THEN
			item.fault := coalesce(item.fault, 'the item is cut off');
			broken := coalesce(broken, 'it ends in the middle of an item');
		END IF;
		IF pg_catalog.pg_column_size(item.payload) > max_payload THEN
			item.fault := coalesce(item.fault, 'the item is larger than contactsync.max_payload');
		END IF;
		ids := ids || item.id;
		kinds := kinds || item.kind;
		payloads := payloads || item.payload;
		versions := versions || contactsync._webhook_time(item.version);
		faults := faults || CASE WHEN item.fault IS NULL AND item.version <> 'null' AND contactsync._webhook_time(item.version) IS NULL
			THEN 'the version of the item is not a time' ELSE item.fault END;
		IF total % 1000 = 0 THEN
			last := GREATEST(last, contactsync._store_items(r, total - 1000, ids, kinds, versions, payloads, faults, coverage));
			ids := '{}'; kinds := '{}'; payloads := '{}'; versions := '{}'; faults := '{}';
		END IF;
	END LOOP;
	last := GREATEST(last, contactsync._store_items(r, total - total % 1000, ids, kinds, versions, payloads, faults, coverage));
	IF total = 0 THEN
		broken := 'it holds nothing';
	END IF;
	UPDATE contactsync.runs x SET state = 'succeeded', finished_at = pg_catalog.clock_timestamp(), pages = 1, items = total,
		certified = "full" AND broken IS NULL, last_inbox_id = last,
		error = CASE WHEN "full" AND broken IS NOT NULL THEN 'the file proves nobody absent: ' || broken END,
		cursor_after = pg_catalog.jsonb_build_object('sha256', digest, 'format', format)
	WHERE x.tenant_id = contactsync.current_tenant() AND x.id = r.id;
	RETURN r.id;
END
$$;

CREATE FUNCTION contactsync.load_file(source text, content bytea, format text DEFAULT NULL, "full" boolean DEFAULT false, key text DEFAULT NULL,
	version timestamptz DEFAULT NULL, date_order text DEFAULT 'mdy') RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.load_file(text, bytea, text, boolean, text, timestamptz, text) IS
	'Queue the contacts of a file (vcard, csv or json; NULL = found out) as events of a push-only source, and return the id of their run. full: the file holds all that the source has, so that what two such files in a row do not show is deleted, under the guard of approve_run(). key: the column, or the SQL/JSON path, of the ids. version: as of when the file is (NULL = now). What of it cannot be read stays in inbox with its reason. The newest file again does nothing. Errors: 42704, 22023, 22004, 22P02 no such file at all, 55000 a source that is read, or a file before it is not applied yet.';
GRANT EXECUTE ON FUNCTION contactsync.load_file(text, bytea, text, boolean, text, timestamptz, text) TO contactsync_app, contactsync_admin;
