-- The type merge_policy: which value wins where sources disagree.

CREATE TYPE contactsync.merge_policy;

-- Stored as jsonb in canonical form: what only reads it is jsonb's own.
CREATE FUNCTION contactsync.merge_policy_in(cstring) RETURNS contactsync.merge_policy
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
CREATE FUNCTION contactsync.merge_policy_out(contactsync.merge_policy) RETURNS cstring
	LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'jsonb_out';
CREATE FUNCTION contactsync.merge_policy_recv(internal) RETURNS contactsync.merge_policy
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
CREATE FUNCTION contactsync.merge_policy_send(contactsync.merge_policy) RETURNS bytea
	LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'jsonb_send';

CREATE TYPE contactsync.merge_policy (
	INPUT = contactsync.merge_policy_in,
	OUTPUT = contactsync.merge_policy_out,
	RECEIVE = contactsync.merge_policy_recv,
	SEND = contactsync.merge_policy_send,
	INTERNALLENGTH = VARIABLE,
	ALIGNMENT = int4,
	STORAGE = extended
);
COMMENT ON TYPE contactsync.merge_policy IS
	'Which value wins where sources disagree: {"<field or group>": {"rule": ..., "sources": [...], ...}, ...}. See set_policy().';

CREATE FUNCTION contactsync.merge_policy_of_jsonb(jsonb) RETURNS contactsync.merge_policy
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.merge_policy_of_jsonb(jsonb) IS
	'A policy from its JSON form. Errors: 22P02 no object, 22023 an unknown member, rule or option, or a rule that makes no sense for its field, with the JSON path in the detail.';
CREATE CAST (jsonb AS contactsync.merge_policy) WITH FUNCTION contactsync.merge_policy_of_jsonb(jsonb) AS ASSIGNMENT;
CREATE CAST (contactsync.merge_policy AS jsonb) WITHOUT FUNCTION AS IMPLICIT;

CREATE FUNCTION contactsync.merge_policy_eq(contactsync.merge_policy, contactsync.merge_policy) RETURNS boolean
	LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'jsonb_eq';
COMMENT ON FUNCTION contactsync.merge_policy_eq(contactsync.merge_policy, contactsync.merge_policy) IS 'Implementation of =';
CREATE FUNCTION contactsync.merge_policy_ne(contactsync.merge_policy, contactsync.merge_policy) RETURNS boolean
	LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'jsonb_ne';
COMMENT ON FUNCTION contactsync.merge_policy_ne(contactsync.merge_policy, contactsync.merge_policy) IS 'Implementation of <>';
CREATE FUNCTION contactsync.merge_policy_hash(contactsync.merge_policy) RETURNS integer
	LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'jsonb_hash';
COMMENT ON FUNCTION contactsync.merge_policy_hash(contactsync.merge_policy) IS 'Hash of a policy.';
CREATE FUNCTION contactsync.merge_policy_hash_extended(contactsync.merge_policy, bigint) RETURNS bigint
	LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'jsonb_hash_extended';
COMMENT ON FUNCTION contactsync.merge_policy_hash_extended(contactsync.merge_policy, bigint) IS 'Hash of a policy, seeded.';
CREATE OPERATOR contactsync.= (LEFTARG = contactsync.merge_policy, RIGHTARG = contactsync.merge_policy,
	FUNCTION = contactsync.merge_policy_eq, COMMUTATOR = OPERATOR(contactsync.=), NEGATOR = OPERATOR(contactsync.<>),
	RESTRICT = eqsel, JOIN = eqjoinsel, HASHES);
COMMENT ON OPERATOR contactsync.= (contactsync.merge_policy, contactsync.merge_policy) IS 'the same rules';
CREATE OPERATOR contactsync.<> (LEFTARG = contactsync.merge_policy, RIGHTARG = contactsync.merge_policy,
	FUNCTION = contactsync.merge_policy_ne, COMMUTATOR = OPERATOR(contactsync.<>), NEGATOR = OPERATOR(contactsync.=),
	RESTRICT = neqsel, JOIN = neqjoinsel);
COMMENT ON OPERATOR contactsync.<> (contactsync.merge_policy, contactsync.merge_policy) IS 'different rules';
CREATE OPERATOR CLASS contactsync.merge_policy_ops DEFAULT FOR TYPE contactsync.merge_policy USING hash AS
	OPERATOR 1 contactsync.=,
	FUNCTION 1 contactsync.merge_policy_hash(contactsync.merge_policy),
	FUNCTION 2 contactsync.merge_policy_hash_extended(contactsync.merge_policy, bigint);
COMMENT ON OPERATOR CLASS contactsync.merge_policy_ops USING hash IS 'Hashes policies.';

CREATE FUNCTION contactsync.merge_policy_unit(policy contactsync.merge_policy, field text) RETURNS text
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.merge_policy_unit(contactsync.merge_policy, text) IS
	'The name under which a policy keeps a field''s rule: of the group that it is in, or its own.';
