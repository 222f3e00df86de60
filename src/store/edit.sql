-- Applications' edits: what is done to the view directory is an observation of
-- the source "app", and weighed by the rules as any other.

CREATE FUNCTION contactsync._patch(old contactsync.contact, new contactsync.contact, OUT patch jsonb, OUT cells jsonb)
	LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'store_patch_sql'; -- NULL = a contact without values
CREATE FUNCTION contactsync._apply_event(inbox_id bigint) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE STRICT AS 'MODULE_PATHNAME', 'store_apply_event_sql';

CREATE FUNCTION contactsync._require_app() RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	app contactsync.sources;
BEGIN
	SELECT s.* INTO app FROM contactsync.sources s WHERE s.tenant_id = contactsync.current_tenant() AND s.name = 'app';
	IF NOT FOUND OR app.state = 'dropped' AND app.connector = 'canonical' THEN
		PERFORM contactsync._add_source('app', 'canonical', '{"class": "app"}', NULL);
	ELSIF app.connector <> 'canonical' THEN
		RAISE EXCEPTION 'source "app" is not of the connector "canonical"' USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'Edits of contactsync.directory are observations of the source "app": give yours another name.';
	END IF;
END
$$;

-- Take one observation of "app" in, and apply it at once.
CREATE FUNCTION contactsync._observe_app(record_key text, kind text, payload jsonb) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	event bigint;
	fault text;
BEGIN
	INSERT INTO contactsync.inbox AS i (source, source_id, kind, version, payload)
	SELECT 'app', record_key, _observe_app.kind,
		-- later than whatever it said before
		GREATEST(pg_catalog.clock_timestamp(), (SELECT r.last_raw + interval '1 microsecond' FROM contactsync.records r
			WHERE r.tenant_id = contactsync.current_tenant() AND r.source = 'app' AND r.source_id = record_key)),
		_observe_app.payload
	RETURNING i.id INTO event;
	PERFORM contactsync._apply_event(event);
	SELECT i.error INTO fault FROM contactsync.inbox i WHERE i.tenant_id = contactsync.current_tenant() AND i.id = event;
	IF FOUND THEN
		RAISE EXCEPTION 'the edit cannot be applied: %', fault USING ERRCODE = 'invalid_parameter_value';
	END IF;
END
$$;

-- The record by which "app" speaks of a contact; made and linked where there is none.
CREATE FUNCTION contactsync._app_record(who uuid) RETURNS text
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	result text;
	made bigint;
	decision bigint;
BEGIN
	SELECT r.source_id INTO result FROM contactsync.records r
	WHERE r.tenant_id = contactsync.current_tenant() AND r.contact_id = who AND r.source = 'app' AND r.alive
	ORDER BY r.id LIMIT 1;
	IF result IS NULL THEN
		result := pg_catalog.gen_random_uuid();
		INSERT INTO contactsync.records AS r (source, source_id) VALUES ('app', result) RETURNING r.id INTO made;
		-- to the record that carries the id: what was edited is what goes by it
		decision := contactsync._decide('link', (SELECT ARRAY[a.record_id] FROM contactsync.contact_aliases a
			WHERE a.tenant_id = contactsync.current_tenant() AND a.id = who), others => ARRAY[made], note => 'edited in directory');
		PERFORM contactsync._apply_links(ARRAY[decision], decision);
	END IF;
	RETURN result;
END
$$;

CREATE FUNCTION contactsync._edited(who uuid) RETURNS contactsync.contact
	LANGUAGE sql STABLE PARALLEL UNSAFE AS $$
	SELECT c.contact FROM contactsync.contacts c WHERE c.tenant_id = contactsync.current_tenant() AND c.id = who
$$;

-- The fields of a patch that did not become what was asked for.
CREATE FUNCTION contactsync._missed(patch jsonb, cells jsonb, got contactsync.contact, wanted contactsync.contact) RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	SELECT pg_catalog.string_agg(pg_catalog.format('"%s"', f.key), ', ' ORDER BY f.key)
	FROM contactsync._patch(got, contactsync.contact_of_jsonb(contactsync.contact_to_jsonb(got)
			|| (SELECT pg_catalog.jsonb_object_agg(p.key, contactsync.contact_to_jsonb(wanted) -> p.key) FROM pg_catalog.jsonb_each(_missed.patch) p))) AS m,
		pg_catalog.jsonb_each(m.patch) f
	-- of lists, others may have more
	WHERE f.value ? 'add' OR pg_catalog.jsonb_typeof(f.value) <> 'object'
		OR f.key = 'metadata' AND EXISTS (SELECT FROM pg_catalog.jsonb_each(f.value) k WHERE k.value <> 'null')
		OR EXISTS (SELECT FROM pg_catalog.jsonb_each(m.cells) r WHERE r.value = 'null' AND _missed.cells -> r.key = 'null'
			AND (pg_catalog.starts_with(r.key, f.key || ':') OR pg_catalog.starts_with(r.key, f.key || '.')))
$$;

-- The contact that an edit of the directory made or changed.
CREATE FUNCTION contactsync.__edit(operation text, who uuid, version bigint, old contactsync.contact, new contactsync.contact) RETURNS uuid
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	edit record;
	record_key text;
	now_version bigint;
	others text;
	cell record;
	decided record;
	last_decision bigint;
	missed text;
BEGIN
	PERFORM contactsync._require_active();
	-- whoever may edit the view may call this, too, with anything
	IF operation IS NULL OR operation NOT IN ('INSERT', 'UPDATE', 'DELETE') THEN
		RAISE EXCEPTION 'operation must be INSERT, UPDATE or DELETE' USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Edit contactsync.directory instead.';
	END IF;
	PERFORM contactsync._lock_tenant();
	IF operation <> 'INSERT' THEN
		SELECT c.version INTO now_version FROM contactsync.contacts c
		WHERE c.tenant_id = contactsync.current_tenant() AND c.id = who AND c.live;
		IF now_version IS NULL OR now_version IS DISTINCT FROM version THEN
			RAISE EXCEPTION 'the contact has changed since it was read' USING ERRCODE = 'serialization_failure',
				DETAIL = CASE WHEN now_version IS NULL THEN 'It was deleted or merged into another one.'
					ELSE pg_catalog.format('Its version is %s, not %s.', now_version, coalesce(version::text, 'null')) END,
				HINT = 'Read it again, and decide on what contactsync.directory shows now.';
		END IF;
	END IF;
	IF operation = 'DELETE' THEN
		SELECT pg_catalog.string_agg(DISTINCT pg_catalog.format('"%s"', r.source), ', ') INTO others FROM contactsync.records r
		WHERE r.tenant_id = contactsync.current_tenant() AND r.contact_id = who AND r.alive AND r.source <> 'app';
		IF others IS NOT NULL THEN
			RAISE EXCEPTION 'the contact is not the application''s to delete' USING ERRCODE = 'object_not_in_prerequisite_state',
				DETAIL = pg_catalog.format('It is held by %s, too.', others),
				HINT = 'Delete it there: it goes from here with its last record.';
		END IF;
		FOR record_key IN SELECT r.source_id FROM contactsync.records r
			WHERE r.tenant_id = contactsync.current_tenant() AND r.contact_id = who AND r.alive ORDER BY r.id
		LOOP
			PERFORM contactsync._observe_app(record_key, 'delete', NULL);
		END LOOP;
		RETURN who;
	END IF;

	PERFORM contactsync._require_app();
	SELECT p.* INTO edit FROM contactsync._patch(old, new) p;
	IF operation = 'INSERT' THEN
		IF edit.patch = '{}' THEN
			RAISE EXCEPTION 'a contact needs a value' USING ERRCODE = 'not_null_violation',
				HINT = 'Give it a name, or one of its other fields.';
		END IF;
		record_key := pg_catalog.gen_random_uuid();
	ELSIF edit.patch = '{}' THEN
		RETURN who;
	ELSE
		record_key := contactsync._app_record(who);
	END IF;
	PERFORM contactsync._observe_app(record_key, 'patch', edit.patch);
	SELECT r.contact_id INTO who FROM contactsync.records r
	WHERE r.tenant_id = contactsync.current_tenant() AND r.source = 'app' AND r.source_id = record_key;

	-- an element that others assert is not gone because "app" does not: it is for the user to say so
	FOR cell IN
		SELECT n.* FROM pg_catalog.jsonb_each(edit.cells) c, contactsync._cell(contactsync._current_policy(), c.key, 'null') n
		WHERE c.value = 'null' AND n.element <> '' AND contactsync._has(contactsync._edited(who), n.field, n.element)
	LOOP
		SELECT o.* INTO decided FROM contactsync._override(who, cell.field, cell.element, NULL, NULL, 'removed in directory', NULL) o;
		last_decision := coalesce(decided.decision, last_decision);
	END LOOP;
	IF last_decision IS NOT NULL THEN
		PERFORM contactsync._resolve_contacts(ARRAY[who], 'decision', last_decision);
	END IF;

	missed := contactsync._missed(edit.patch, edit.cells, contactsync._edited(who), new);
	IF missed IS NOT NULL THEN
		RAISE NOTICE 'the edit of % does not show in the contact', missed USING
			HINT = 'It is kept, but by the rules others decide: see contactsync.explain(). contactsync.override_field() is above all rules.';
	END IF;
	RETURN who;
END
$$;
CREATE FUNCTION contactsync._edit(operation text, who uuid, version bigint, old contactsync.contact, new contactsync.contact) RETURNS uuid
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
GRANT EXECUTE ON FUNCTION contactsync._edit(text, uuid, bigint, contactsync.contact, contactsync.contact) TO contactsync_app, contactsync_admin;

-- A list in which another element was made the primary one, without the mark on the former.
CREATE FUNCTION contactsync._remark(new jsonb, old jsonb) RETURNS jsonb
	LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	SELECT CASE WHEN pg_catalog.jsonb_typeof(new) = 'array' AND pg_catalog.jsonb_array_length(
			pg_catalog.jsonb_path_query_array(new, '$[*] ? (@.primary == true)')) > 1
		THEN (SELECT pg_catalog.jsonb_agg(CASE WHEN e.element ->> 'primary' = 'true' AND old @> pg_catalog.jsonb_build_array(e.element)
				THEN e.element - 'primary' ELSE e.element END ORDER BY e.i)
			FROM pg_catalog.jsonb_array_elements(new) WITH ORDINALITY e (element, i))
		ELSE new END
$$;

CREATE FUNCTION contactsync._directory_edit() RETURNS trigger
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	old_values jsonb := '{}';
	old_computed jsonb := '{}';
	new_values jsonb;
	new_computed jsonb;
	wanted contactsync.contact;
	who uuid;
	bad text;
BEGIN
	IF TG_OP = 'DELETE' THEN
		PERFORM contactsync._edit('DELETE', OLD.id, OLD.version, NULL, NULL);
		RETURN OLD;
	END IF;
	new_values := jsonb_build_object('first_name', NEW.first_name, 'middle_name', NEW.middle_name, 'last_name', NEW.last_name,
		'prefix', NEW.prefix, 'suffix', NEW.suffix, 'nickname', NEW.nickname, 'company', NEW.company, 'department', NEW.department,
		'title', NEW.title, 'birthday', NEW.birthday, 'note', NEW.note, 'photo', NEW.photo, 'emails', NEW.emails, 'phones', NEW.phones,
		'addresses', NEW.addresses, 'urls', NEW.urls, 'tags', NEW.tags, 'metadata', NEW.metadata);
	new_computed := jsonb_build_object('id', NEW.id, 'source', NEW.source, 'source_id', NEW.source_id, 'sources', NEW.sources,
		'provenance', NEW.provenance, 'open_conflicts', NEW.open_conflicts, 'last_modified', NEW.last_modified, 'modified_by', NEW.modified_by);
	IF TG_OP = 'UPDATE' THEN
		new_values := new_values || jsonb_build_object('emails', contactsync._remark(NEW.emails, OLD.emails),
			'phones', contactsync._remark(NEW.phones, OLD.phones));
		old_values := jsonb_build_object('first_name', OLD.first_name, 'middle_name', OLD.middle_name, 'last_name', OLD.last_name,
			'prefix', OLD.prefix, 'suffix', OLD.suffix, 'nickname', OLD.nickname, 'company', OLD.company, 'department', OLD.department,
			'title', OLD.title, 'birthday', OLD.birthday, 'note', OLD.note, 'photo', OLD.photo, 'emails', OLD.emails, 'phones', OLD.phones,
			'addresses', OLD.addresses, 'urls', OLD.urls, 'tags', OLD.tags, 'metadata', OLD.metadata);
		old_computed := jsonb_build_object('id', OLD.id, 'source', OLD.source, 'source_id', OLD.source_id, 'sources', OLD.sources,
			'provenance', OLD.provenance, 'open_conflicts', OLD.open_conflicts, 'last_modified', OLD.last_modified, 'modified_by', OLD.modified_by);
	ELSE
		new_computed := new_computed || jsonb_build_object('version', NEW.version);
	END IF;
	SELECT n.key INTO bad FROM jsonb_each(new_computed) n WHERE n.value <> coalesce(old_computed -> n.key, 'null') ORDER BY n.key LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'column "%" of directory cannot be given a value', bad USING ERRCODE = 'generated_always',
			HINT = 'It is computed. The values of a contact can be edited, and version can name the one that was read.';
	END IF;
	-- the columns that were given another value, over what stands in "contact"
	SELECT contactsync.contact_of_jsonb(coalesce(contactsync.contact_to_jsonb(NEW.contact), '{}') || coalesce(jsonb_object_agg(n.key, n.value), '{}'))
	INTO wanted FROM jsonb_each(new_values) n WHERE n.value <> coalesce(old_values -> n.key, 'null');
	IF TG_OP = 'INSERT' THEN
		who := contactsync._edit('INSERT', NULL, NULL, NULL, wanted);
	ELSE
		-- a version is named as it was read, or one up
		who := contactsync._edit('UPDATE', OLD.id, NEW.version - (NEW.version = OLD.version + 1)::integer, OLD.contact, wanted);
	END IF;
	SELECT d.* INTO NEW FROM contactsync.directory d WHERE d.id = who;
	RETURN NEW;
END
$$;
CREATE TRIGGER edit INSTEAD OF INSERT OR UPDATE OR DELETE ON contactsync.directory
	FOR EACH ROW EXECUTE FUNCTION contactsync._directory_edit();
GRANT EXECUTE ON FUNCTION contactsync._remark(jsonb, jsonb) TO contactsync_app, contactsync_admin;
GRANT INSERT, UPDATE, DELETE ON contactsync.directory TO contactsync_app, contactsync_admin;
