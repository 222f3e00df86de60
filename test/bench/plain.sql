-- What one would write without the extension: an upsert and merge in plpgsql, an event
-- at a time, over the same tables with the same keys and indexes, and with audit.
-- Simpler than what it stands beside: no late events, groups, rules, deletes or conflicts.
CREATE SCHEMA plain;
CREATE TABLE plain.inbox (LIKE contactsync.inbox INCLUDING ALL);
CREATE TABLE plain.records (LIKE contactsync.records INCLUDING ALL);
CREATE TABLE plain.observations (LIKE contactsync.observations INCLUDING ALL);
CREATE TABLE plain.identities (LIKE contactsync.identities INCLUDING ALL);
CREATE TABLE plain.contact_aliases (LIKE contactsync.contact_aliases INCLUDING ALL);
CREATE TABLE plain.contacts (LIKE contactsync.contacts INCLUDING ALL);
CREATE TABLE plain.audit_log (LIKE contactsync.audit_log INCLUDING ALL, PRIMARY KEY (tenant_id, at, id));
CREATE INDEX ON plain.audit_log (tenant_id, row_key, at);
ALTER TABLE plain.records ALTER state TYPE jsonb USING NULL;
ALTER TABLE plain.observations ALTER claims TYPE jsonb USING NULL;
ALTER TABLE plain.contacts ALTER contact TYPE jsonb USING NULL;
CREATE SEQUENCE plain.audit_log_id_seq;

CREATE FUNCTION plain.process() RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
	t CONSTANT text := contactsync.current_tenant();
	e record;
	r record;
	new_state jsonb;
	keys text[];
	who uuid;
	merged jsonb;
	old jsonb;
	changed jsonb;
	n integer := 0;
BEGIN
	FOR e IN SELECT * FROM plain.inbox i WHERE i.tenant_id = t AND i.failed_at IS NULL ORDER BY i.id LOOP
		n := n + 1;
		DELETE FROM plain.inbox i WHERE i.tenant_id = t AND i.id = e.id;
		SELECT x.id, x.state, x.contact_id, x.last_effective INTO r FROM plain.records x
		WHERE x.tenant_id = t AND x.source = e.source AND x.source_id = e.source_id;
		IF NOT FOUND THEN
			INSERT INTO plain.records AS x (tenant_id, source, source_id, alive) VALUES (t, e.source, e.source_id, true)
			RETURNING x.id, x.state, x.contact_id, x.last_effective INTO r;
		END IF;
		INSERT INTO plain.observations (tenant_id, record_id, kind, version, effective, seq, digest, claims, covers, payload, inbox_id,
			received_at, tolerance)
		VALUES (t, r.id, e.kind, e.version, e.version, e.seq, pg_catalog.substr(pg_catalog.sha256(pg_catalog.convert_to(e.version || e.payload::text, 'UTF8')), 1, 16),
			e.payload, '{*}', e.payload, e.id, e.received_at, '5 min')
		ON CONFLICT (tenant_id, record_id, digest) DO NOTHING;
		CONTINUE WHEN NOT FOUND OR e.version <= r.last_effective;

		-- each field with the time at which it came to be what it is
		SELECT jsonb_object_agg(f.key, jsonb_build_object('value', f.value, 'at',
			CASE WHEN r.state -> f.key -> 'value' = f.value THEN r.state -> f.key -> 'at' ELSE to_jsonb(e.version) END))
		INTO new_state FROM jsonb_each(e.payload) f;
		keys := ARRAY(SELECT 'email:' || lower(m) FROM jsonb_array_elements_text(e.payload -> 'emails') m
			UNION SELECT 'tel:' || m FROM jsonb_array_elements_text(e.payload -> 'phones') m);
		INSERT INTO plain.identities (tenant_id, key, record_id, first_version) SELECT t, k, r.id, e.version FROM unnest(keys) k
		ON CONFLICT (tenant_id, key, record_id) DO NOTHING;

		-- whoever has one of the keys and the same last name is the same person
		who := r.contact_id;
		IF who IS NULL THEN
			SELECT x.contact_id INTO who FROM plain.identities i JOIN plain.records x ON x.tenant_id = t AND x.id = i.record_id
			WHERE i.tenant_id = t AND i.key = ANY (keys) AND x.contact_id IS NOT NULL
				AND x.state -> 'last_name' -> 'value' = e.payload -> 'last_name' LIMIT 1;
			IF who IS NULL THEN
				who := pg_catalog.gen_random_uuid();
				INSERT INTO plain.contact_aliases (tenant_id, id, record_id, minted_for) VALUES (t, who, r.id, r.id);
			END IF;
		END IF;
		UPDATE plain.records x SET state = new_state, contact_id = who, version = e.version, last_effective = e.version, last_raw = e.version,
			last_seq = e.seq WHERE x.tenant_id = t AND x.id = r.id;

		-- single values: the latest; lists: all
		SELECT jsonb_object_agg(l.key, l.value) INTO merged FROM (
			SELECT f.key, CASE WHEN count(*) > 1 AND f.key IN ('emails', 'phones', 'tags')
				THEN (SELECT jsonb_agg(DISTINCT m.value) FROM jsonb_array_elements(jsonb_agg(f.value -> 'value')) a, jsonb_array_elements(a.value) m)
				ELSE (array_agg(f.value -> 'value' ORDER BY f.value ->> 'at' DESC, x.source, x.source_id))[1] END AS value
			FROM plain.records x, jsonb_each(x.state) f WHERE x.tenant_id = t AND x.contact_id = who GROUP BY f.key) l;
		SELECT c.contact INTO old FROM plain.contacts c WHERE c.tenant_id = t AND c.id = who;
		IF NOT FOUND THEN
			INSERT INTO plain.contacts (tenant_id, id, contact, live, naming_record, policy_version, generation, last_modified, modified_by)
			VALUES (t, who, merged, true, r.id, 0, 1, clock_timestamp(), current_user);
		ELSIF old IS DISTINCT FROM merged THEN
			UPDATE plain.contacts c SET contact = merged, version = c.version + 1, generation = c.generation + 1,
				last_modified = clock_timestamp(), modified_by = current_user WHERE c.tenant_id = t AND c.id = who;
		ELSE
			CONTINUE;
		END IF;
		SELECT jsonb_object_agg(coalesce(o.key, m.key), jsonb_build_object('old', o.value, 'new', m.value)) INTO changed
		FROM jsonb_each(old) o FULL JOIN jsonb_each(merged) m ON m.key = o.key WHERE o.value IS DISTINCT FROM m.value;
		INSERT INTO plain.audit_log (tenant_id, id, at, xact, system_identifier, session_role, "current_role", application_name, cause, cause_id,
			relation, operation, row_key, changed, secret)
		VALUES (t, nextval('plain.audit_log_id_seq'), clock_timestamp(), pg_current_xact_id(), 0, session_user, current_user,
			current_setting('application_name'), 'event', e.id, 'contacts', CASE WHEN old IS NULL THEN 'insert' ELSE 'update' END,
			who::text, changed, pg_catalog.uuid_send(pg_catalog.gen_random_uuid()));
	END LOOP;
	RETURN n;
END
$$;
