-- Searching contacts, and putting them together.  What searches is LEAKPROOF:
-- it raises no error that depends on a value, and row-level security may use
-- its indexes.

CREATE FUNCTION contactsync.contact_exists(contactsync.contact, text) RETURNS boolean
	LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.contact_exists(contactsync.contact, text) IS 'Implementation of ?';
CREATE FUNCTION contactsync.contact_contains(contactsync.contact, contactsync.contact) RETURNS boolean
	LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.contact_contains(contactsync.contact, contactsync.contact) IS 'Implementation of @>';
CREATE FUNCTION contactsync.contact_contained(contactsync.contact, contactsync.contact) RETURNS boolean
	LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.contact_contained(contactsync.contact, contactsync.contact) IS 'Implementation of <@';
CREATE FUNCTION contactsync.contact_has_any_key(contactsync.contact, text[]) RETURNS boolean
	LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.contact_has_any_key(contactsync.contact, text[]) IS 'Implementation of &&';

CREATE FUNCTION contactsync.contact_keysel(internal, oid, internal, integer) RETURNS double precision
	LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.contact_keysel(internal, oid, internal, integer) IS 'Restriction selectivity of &&';

CREATE OPERATOR contactsync.? (LEFTARG = contactsync.contact, RIGHTARG = text,
	FUNCTION = contactsync.contact_exists, RESTRICT = matchingsel, JOIN = matchingjoinsel);
COMMENT ON OPERATOR contactsync.? (contactsync.contact, text) IS
	'has the field: whether -> with the same name is not null; keys of metadata are not fields';
CREATE OPERATOR contactsync.@> (LEFTARG = contactsync.contact, RIGHTARG = contactsync.contact,
	FUNCTION = contactsync.contact_contains, COMMUTATOR = OPERATOR(contactsync.<@),
	RESTRICT = matchingsel, JOIN = matchingjoinsel);
COMMENT ON OPERATOR contactsync.@> (contactsync.contact, contactsync.contact) IS
	'contains: fields and metadata with equal values, elements of lists by what they identify, whatever their labels';
CREATE OPERATOR contactsync.<@ (LEFTARG = contactsync.contact, RIGHTARG = contactsync.contact,
	FUNCTION = contactsync.contact_contained, COMMUTATOR = OPERATOR(contactsync.@>),
	RESTRICT = matchingsel, JOIN = matchingjoinsel);
COMMENT ON OPERATOR contactsync.<@ (contactsync.contact, contactsync.contact) IS 'is contained by';
CREATE OPERATOR contactsync.&& (LEFTARG = contactsync.contact, RIGHTARG = text[],
	FUNCTION = contactsync.contact_has_any_key, RESTRICT = contactsync.contact_keysel, JOIN = matchingjoinsel);
COMMENT ON OPERATOR contactsync.&& (contactsync.contact, text[]) IS
	'has any of these keys, spelled as contact_keys gives them';

CREATE FUNCTION contactsync.contact_concat(contactsync.contact, contactsync.contact) RETURNS contactsync.contact
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.contact_concat(contactsync.contact, contactsync.contact) IS 'Implementation of ||';
CREATE OPERATOR contactsync.|| (LEFTARG = contactsync.contact, RIGHTARG = contactsync.contact,
	FUNCTION = contactsync.contact_concat);
COMMENT ON OPERATOR contactsync.|| (contactsync.contact, contactsync.contact) IS
	'both together: lists and metadata united, and of two values of one thing that of the right';
CREATE FUNCTION contactsync.contact_delete(contactsync.contact, text) RETURNS contactsync.contact
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.contact_delete(contactsync.contact, text) IS 'Implementation of -';
CREATE OPERATOR contactsync.- (LEFTARG = contactsync.contact, RIGHTARG = text, FUNCTION = contactsync.contact_delete);
COMMENT ON OPERATOR contactsync.- (contactsync.contact, text) IS 'without a field';
CREATE FUNCTION contactsync.contact_delete(contactsync.contact, text[]) RETURNS contactsync.contact
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'contact_delete_array';
COMMENT ON FUNCTION contactsync.contact_delete(contactsync.contact, text[]) IS 'Implementation of -';
CREATE OPERATOR contactsync.- (LEFTARG = contactsync.contact, RIGHTARG = text[], FUNCTION = contactsync.contact_delete);
COMMENT ON OPERATOR contactsync.- (contactsync.contact, text[]) IS 'without these fields';

-- not strict: no contact at all is what comes before the first one
CREATE FUNCTION contactsync.contact_diff(old contactsync.contact, new contactsync.contact) RETURNS jsonb
	LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.contact_diff(contactsync.contact, contactsync.contact) IS
	'The fields that differ, as {"title": {"old": ..., "new": ...}}, an object without members if none does; NULL is a contact without values.';
CREATE FUNCTION contactsync.contact_primary(contact contactsync.contact, field text) RETURNS text
	LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.contact_primary(contactsync.contact, text) IS
	'Of emails, phones, urls or tags, the text of the primary element, or of the first if none is primary.';

CREATE FUNCTION contactsync.gin_extract_contact(contactsync.contact, internal) RETURNS internal
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.gin_extract_contact(contactsync.contact, internal) IS 'GIN support';
CREATE FUNCTION contactsync.gin_extract_contact_keys(contactsync.contact, internal) RETURNS internal
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.gin_extract_contact_keys(contactsync.contact, internal) IS 'GIN support';
CREATE FUNCTION contactsync.gin_extract_contact_query(contactsync.contact, internal, smallint, internal, internal, internal, internal)
	RETURNS internal LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.gin_extract_contact_query(contactsync.contact, internal, smallint, internal, internal, internal, internal) IS
	'GIN support';
CREATE FUNCTION contactsync.gin_consistent_contact(internal, smallint, contactsync.contact, integer, internal, internal, internal, internal)
	RETURNS boolean LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.gin_consistent_contact(internal, smallint, contactsync.contact, integer, internal, internal, internal, internal) IS
	'GIN support';
CREATE FUNCTION contactsync.gin_triconsistent_contact(internal, smallint, contactsync.contact, integer, internal, internal, internal)
	RETURNS "char" LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.gin_triconsistent_contact(internal, smallint, contactsync.contact, integer, internal, internal, internal) IS
	'GIN support';

CREATE OPERATOR CLASS contactsync.contact_ops DEFAULT FOR TYPE contactsync.contact USING gin AS
	OPERATOR 1 contactsync.&& (contactsync.contact, text[]),
	OPERATOR 7 contactsync.@>,
	OPERATOR 9 contactsync.? (contactsync.contact, text),
	FUNCTION 1 pg_catalog.btint4cmp(integer, integer),
	FUNCTION 2 contactsync.gin_extract_contact(contactsync.contact, internal),
	FUNCTION 3 contactsync.gin_extract_contact_query(contactsync.contact, internal, smallint, internal, internal, internal, internal),
	FUNCTION 4 contactsync.gin_consistent_contact(internal, smallint, contactsync.contact, integer, internal, internal, internal, internal),
	FUNCTION 6 contactsync.gin_triconsistent_contact(internal, smallint, contactsync.contact, integer, internal, internal, internal),
	STORAGE integer;
COMMENT ON OPERATOR CLASS contactsync.contact_ops USING gin IS 'Finds contacts by &&, @> and ?.';
CREATE OPERATOR CLASS contactsync.contact_key_ops FOR TYPE contactsync.contact USING gin AS
	OPERATOR 1 contactsync.&& (contactsync.contact, text[]),
	FUNCTION 1 pg_catalog.btint4cmp(integer, integer),
	FUNCTION 2 contactsync.gin_extract_contact_keys(contactsync.contact, internal),
	FUNCTION 3 contactsync.gin_extract_contact_query(contactsync.contact, internal, smallint, internal, internal, internal, internal),
	FUNCTION 4 contactsync.gin_consistent_contact(internal, smallint, contactsync.contact, integer, internal, internal, internal, internal),
	FUNCTION 6 contactsync.gin_triconsistent_contact(internal, smallint, contactsync.contact, integer, internal, internal, internal),
	STORAGE integer;
COMMENT ON OPERATOR CLASS contactsync.contact_key_ops USING gin IS 'Finds contacts by && only, in a smaller index.';
