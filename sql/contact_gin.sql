-- GIN: the index finds what a sequential scan finds, also under row-level security.
SET search_path = contactsync, public;

SELECT amname, opcname, opcdefault, amvalidate(o.oid) FROM pg_opclass o JOIN pg_am a ON a.oid = opcmethod
WHERE opcintype = 'contact'::regtype ORDER BY amname, opcname;

-- a few thousand contacts with few and with many values in common
SELECT setseed(0.5);
CREATE TABLE gin_people AS
SELECT i AS id, CASE i % 3 WHEN 0 THEN 'acme' ELSE 'other' END AS tenant_id,
	CASE WHEN i % 97 = 0 THEN NULL WHEN i % 89 = 0 THEN '{}' ELSE jsonb_strip_nulls(jsonb_build_object(
	'first_name', 'f' || floor(random() * 30), 'title', CASE WHEN random() < 0.1 THEN 't' || floor(random() * 5) END,
	'emails', jsonb_build_array('u' || i || '@x.org', 'Shared' || floor(random() * 500) || '@y.org', 'no address ' || floor(random() * 3)),
	'phones', CASE WHEN random() < 0.5 THEN jsonb_build_array('+1650253' || 1000 + floor(random() * 2000), jsonb_build_object('number', '+16502530000', 'extension', floor(random() * 9)::text)) END,
	'tags', CASE WHEN random() < 0.7 THEN jsonb_build_array('t' || floor(random() * 9), 'u' || floor(random() * 9)) END,
	'metadata', jsonb_build_object('plan', floor(random() * 4), 'k' || floor(random() * 9), jsonb_build_array(1, floor(random() * 9)))))::contact END AS c
FROM generate_series(1, 4000) i;
CREATE INDEX gin_people_c ON gin_people USING gin (c);
-- also through the pending list
INSERT INTO gin_people SELECT id + 10000, tenant_id, c || '{"nickname": "late"}' FROM gin_people WHERE id <= 500;
ANALYZE gin_people;

CREATE TEMP TABLE queries (n serial, op text, q text);
INSERT INTO queries (op, q) VALUES
 ('@>', '{}'), ('@>', '{"first_name": "f7"}'), ('@>', '{"first_name": "F7"}'), ('@>', '{"first_name": "f7", "title": "t1"}'), ('@>', '{"title": "nobody"}'),
 ('@>', '{"emails": ["U5@x.org"]}'), ('@>', '{"emails": ["shared7@y.org"], "tags": ["t3"]}'), ('@>', '{"emails": ["no address 1"]}'), ('@>', '{"tags": ["t1", "u1"]}'),
 ('@>', '{"phones": [{"number": "+16502530000", "extension": "3"}]}'), ('@>', '{"phones": ["+16502531234"]}'), ('@>', '{"metadata": {"plan": 3}}'), ('@>', '{"metadata": {"plan": "3"}}'),
 ('@>', '{"k3": [1, 2], "nickname": "late"}'),
 ('?', 'title'), ('?', 'phones'), ('?', 'birthday'), ('?', 'plan'), ('?', ''), ('?', 'nickname'),
 ('&&', '{email:u5@x.org}'), ('&&', '{email:shared7@y.org,tel:+16502531234,NULL}'), ('&&', '{}'), ('&&', '{NULL}'), ('&&', '{?title,email:no address 1,=}'), ('&&', '{tel:+16502530000}');

CREATE FUNCTION pg_temp.rows_found(op text, q text) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
	r bigint[];
BEGIN
	EXECUTE format('SELECT array_agg(id ORDER BY id) FROM gin_people WHERE c %s %L::%s', op, q,
		CASE op WHEN '@>' THEN 'contact' WHEN '?' THEN 'text' ELSE 'text[]' END) INTO r;
	RETURN r;
END $$;
SET enable_seqscan = off;
EXPLAIN (COSTS OFF) SELECT id FROM gin_people WHERE c @> '{"first_name": "f7", "emails": ["u5@x.org"]}';
EXPLAIN (COSTS OFF) SELECT id FROM gin_people WHERE '{"first_name": "f7"}' <@ c AND c ? 'title' AND c && '{email:u5@x.org}';
CREATE TEMP TABLE by_index AS SELECT n, pg_temp.rows_found(op, q) AS ids FROM queries;
RESET enable_seqscan;
SET enable_bitmapscan = off; SET enable_indexscan = off;
CREATE TEMP TABLE by_scan AS SELECT n, pg_temp.rows_found(op, q) AS ids FROM queries;
RESET enable_bitmapscan; RESET enable_indexscan;
SELECT op, q, coalesce(cardinality(s.ids), 0) AS found, i.ids IS NOT DISTINCT FROM s.ids AS same
FROM queries JOIN by_index i USING (n) JOIN by_scan s USING (n) ORDER BY n;

-- the smaller one, for keys alone
CREATE INDEX gin_people_key ON gin_people USING gin (c contact_key_ops);
DROP INDEX gin_people_c;
SET enable_seqscan = off;
EXPLAIN (COSTS OFF) SELECT id FROM gin_people WHERE c && '{email:u5@x.org}';
CREATE TEMP TABLE by_keys AS SELECT n, pg_temp.rows_found(op, q) AS ids FROM queries WHERE op = '&&';
RESET enable_seqscan;
SELECT count(*), bool_and(k.ids IS NOT DISTINCT FROM s.ids) AS same FROM by_keys k JOIN by_scan s USING (n);
DROP INDEX gin_people_key;
CREATE INDEX gin_people_c ON gin_people USING gin (c);

-- estimates come from the statistics of the column
CREATE FUNCTION pg_temp.estimate(query text) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
	j json;
BEGIN
	EXECUTE 'EXPLAIN (FORMAT json) ' || query INTO j;
	RETURN j -> 0 -> 'Plan' ->> 'Plan Rows';
END $$;
SELECT pg_temp.estimate('SELECT FROM gin_people WHERE c ? ''emails''') > 3500 AS nearly_all,
	pg_temp.estimate('SELECT FROM gin_people WHERE c ? ''title''') BETWEEN 50 AND 1500 AS some,
	pg_temp.estimate('SELECT FROM gin_people WHERE c @> ''{"metadata": {"plan": 1}}''') BETWEEN 300 AND 3000 AS a_quarter,
	pg_temp.estimate('SELECT FROM gin_people WHERE c && ''{email:u5@x.org}''') < 60 AS few;

-- row-level security: what searches is leakproof, so a tenant's search uses the index
SELECT oprname, oprcode FROM pg_operator JOIN pg_proc p ON p.oid = oprcode
WHERE oprnamespace = 'contactsync'::regnamespace AND oprleft = 'contact'::regtype AND oprresult = 'boolean'::regtype AND NOT proleakproof;
CREATE ROLE regress_contact_app LOGIN;
GRANT contactsync_app TO regress_contact_app;
ALTER TABLE gin_people ENABLE ROW LEVEL SECURITY;
UPDATE gin_people SET tenant_id = 'default' WHERE tenant_id = 'acme';
CREATE POLICY tenant ON gin_people USING (tenant_id = contactsync.current_tenant());
GRANT SELECT ON gin_people TO regress_contact_app;
CREATE INDEX gin_people_title ON gin_people ((c ->> 'title'));
CREATE INDEX gin_people_keys ON gin_people USING gin (contact_keys(c));
VACUUM ANALYZE gin_people;
SET ROLE regress_contact_app;
EXPLAIN (COSTS OFF) SELECT id FROM gin_people WHERE c && '{email:u6@x.org}';
EXPLAIN (COSTS OFF) SELECT id FROM gin_people WHERE c @> '{"emails": ["u6@x.org"]}';
EXPLAIN (COSTS OFF) SELECT id FROM gin_people WHERE c ? 'birthday';
EXPLAIN (COSTS OFF) SELECT id FROM gin_people WHERE c ->> 'title' = 't9';
SELECT id, tenant_id FROM gin_people WHERE c && '{email:u5@x.org,email:u6@x.org,email:u7@x.org,email:u9@x.org}' ORDER BY id;
RESET ROLE;

DROP TABLE gin_people;
DROP ROLE regress_contact_app;
