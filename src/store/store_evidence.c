/*
 * store_evidence.c
 *		The keys by which records may be found and linked: what they ever asserted.
 *
 * Mail addresses and telephone numbers of a line of their own, and those
 * metadata keys that the policy, or the settings of their source, declare to be
 * exclusive ids.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "store/store.h"

/* Labels of mobile numbers, in address books of phones and of providers. */
static const char *const mobile_types[] = {"cell", "cellular", "cellphone", "handy", "iphone", "mobile", "mobil", "movil", "portable"};

static bool
is_word(StrView s, const char *word)
{
	return s.len == strlen(word) && memcmp(s.ptr, word, s.len) == 0;
}

static bool
is_mobile(StrView type)
{
	for (int i = 0; i < lengthof(mobile_types); i++)
		if (is_word(type, mobile_types[i]))
			return true;
	return false;
}

void
store_evidence_init(StoreEvidence *evidence)
{
	uint64		n;

	store_array_init(&evidence->anew, INT8OID);
	store_array_init(&evidence->keys, TEXTOID);
	store_array_init(&evidence->records, INT8OID);
	store_array_init(&evidence->since, TIMESTAMPTZOID);
	store_array_init(&evidence->mobile, BOOLOID);
	n = store_run("SELECT NULL, k.key FROM pg_catalog.jsonb_each_text(("
				  "SELECT p.policy FROM contactsync.identity_policies p "
				  "WHERE p.tenant_id = contactsync.current_tenant() ORDER BY p.version DESC LIMIT 1)) k "
				  "WHERE k.value = 'exclusive' UNION ALL "
				  "SELECT s.name, k.key FROM contactsync.sources s "
				  "CROSS JOIN LATERAL pg_catalog.jsonb_each_text(s.settings -> 'identity') k "
				  "WHERE s.tenant_id = contactsync.current_tenant() AND k.value = 'exclusive'", 0, NULL);
	evidence->nexclusive = 0;
	evidence->exclusive = palloc(sizeof(*evidence->exclusive) * Max(n, 1));
	for (uint64 row = 0; row < n; row++)
	{
		StrView		name = store_text(row, 2);

		/* "metadata.<key>" */
		if (name.len <= 9)
			continue;
		evidence->exclusive[evidence->nexclusive].source = store_text(row, 1);
		evidence->exclusive[evidence->nexclusive].key.ptr = name.ptr + 9;
		evidence->exclusive[evidence->nexclusive++].key.len = name.len - 9;
	}
}

static bool
is_exclusive(const StoreEvidence *evidence, StrView source, StrView key)
{
	for (int i = 0; i < evidence->nexclusive; i++)
		if (strview_cmp(evidence->exclusive[i].key, key) == 0 &&
			(evidence->exclusive[i].source.ptr == NULL || strview_cmp(evidence->exclusive[i].source, source) == 0))
			return true;
	return false;
}

/* "id:<name>:<value>" of a metadata key; a text or a number can be an id. */
static bool
id_key(const ContactItem *item, StringInfo buf)
{
	StrView		value = item->value;

	if (value.len > 1 && value.ptr[0] == '"')
	{
		value.ptr++;
		value.len -= 2;
	}
	else if (value.len == 0 || (value.ptr[0] != '-' && (value.ptr[0] < '0' || value.ptr[0] > '9')))
		return false;
	value = contact_name_key(value);
	if (value.len == 0)
		return false;
	appendStringInfoString(buf, "id:");
	for (int i = 0; i < item->key.len; i++)
	{
		if (item->key.ptr[i] == ':' || item->key.ptr[i] == '\\')
			appendStringInfoChar(buf, '\\');
		appendStringInfoChar(buf, item->key.ptr[i]);
	}
	appendStringInfoChar(buf, ':');
	appendBinaryStringInfo(buf, value.ptr, value.len);
	return true;
}

/* Does an observation assert a key that its record, as folded so far, does not assert as well? */
bool
store_asserts_more(const MergeObservation *o, const StoreRecord *r, const StoreEvidence *evidence)
{
	const ContactValue *v = &o->claims.value;

	for (int i = 0; i < v->nitems; i++)
	{
		const ContactItem *item = &v->items[i];
		const ContactItem *known;
		int			at;

		if (item->field != CF_EMAILS && item->field != CF_PHONES &&
			(item->field != CF_METADATA || !is_exclusive(evidence, r->source, item->key)))
			continue;
		at = contact_find(&r->m.state, item->field, item->key);
		known = &r->m.state.items[at];
		if (at < 0 || (known->flags & CI_TOMBSTONE) ||
			(r->m.state.stamps[known->stamp].flags & CS_DERIVED) ||
			(item->field == CF_PHONES && is_mobile(item->type) && !is_mobile(known->type)) ||
			(item->field == CF_METADATA && strview_cmp(item->value, known->value) != 0))
			return true;
	}
	return false;
}

void
store_note_evidence(const MergeObservation *o, const StoreRecord *r, StoreEvidence *evidence)
{
	const ContactValue *v = &o->claims.value;
	const StrView nokey = {NULL, 0};
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; o->kind == MK_BASE && i < o->base->nkeys; i++)
	{
		store_array_add_text(&evidence->keys, o->base->keys[i].key);
		store_array_add(&evidence->records, Int64GetDatum(r->id), false);
		store_array_add_time(&evidence->since, o->base->keys[i].since);
		store_array_add(&evidence->mobile, BoolGetDatum(o->base->keys[i].mobile), false);
	}
	for (int i = 0; o->kind != MK_BASE && i < v->nitems; i++)
	{
		const ContactItem *item = &v->items[i];
		StrView		key = nokey;
		StrView		full;

		if (item->field == CF_EMAILS)
			key = contact_email_key(item->value);
		else if (item->field == CF_PHONES && item->extension.len == 0)
			key = contact_phone_key(item->value, nokey);
		else if (item->field != CF_METADATA || !is_exclusive(evidence, r->source, item->key))
			continue;
		resetStringInfo(&buf);
		if (item->field == CF_METADATA)
		{
			if (!id_key(item, &buf))
				continue;
		}
		else if (key.len == 0)
			continue;
		else
		{
			appendStringInfoString(&buf, item->field == CF_EMAILS ? "email:" : "tel:");
			appendBinaryStringInfo(&buf, key.ptr, key.len);
		}
		full.ptr = buf.data;
		full.len = buf.len;
		store_array_add_text(&evidence->keys, full);
		store_array_add(&evidence->records, Int64GetDatum(r->id), false);
		store_array_add_time(&evidence->since, o->effective);
		store_array_add(&evidence->mobile, BoolGetDatum(item->field == CF_PHONES && is_mobile(item->type)), false);
	}
	pfree(buf.data);
}

/* That a record asserts a key. */
typedef struct Assertion
{
	StrView		key;
	int64		record_id;
	int64		since;
	bool		mobile;
} Assertion;

static int
assertion_cmp(const void *a, const void *b)
{
	const Assertion *x = a;
	const Assertion *y = b;
	int			r = strview_cmp(x->key, y->key);

	if (r)
		return r;
	return x->record_id < y->record_id ? -1 : x->record_id > y->record_id;
}

static void
save_assertions(const StoreEvidence *evidence, const StoreRecord *records, int nrecords)
{
	static const StoreColumn columns[] = {
		{"key", TEXTOID}, {"record_id", INT8OID}, {"first_version", TIMESTAMPTZOID}, {"mobile", BOOLOID}
	};
	int			n = evidence->keys.n;
	Assertion  *said = palloc_extended(sizeof(Assertion) * Max(n, 1), MCXT_ALLOC_HUGE);
	int64		first_fresh = PG_INT64_MAX;
	StoreRows	fresh;
	StoreRows	others;
	int			last = -1;

	/* ids of those that are not stored yet are later than all others */
	for (int i = 0; i < nrecords; i++)
		if (records[i].fresh)
			first_fresh = Min(first_fresh, records[i].id);
	for (int i = 0; i < n; i++)
	{
		text	   *key = DatumGetTextPP(evidence->keys.values[i]);

		said[i].key.ptr = VARDATA_ANY(key);
		said[i].key.len = VARSIZE_ANY_EXHDR(key);
		said[i].record_id = DatumGetInt64(evidence->records.values[i]);
		said[i].since = DatumGetTimestampTz(evidence->since.values[i]);
		said[i].mobile = DatumGetBool(evidence->mobile.values[i]);
	}
	qsort(said, n, sizeof(Assertion), assertion_cmp);
	for (int i = 0; i < n; i++)
	{
		if (last < 0 || assertion_cmp(&said[last], &said[i]) != 0)
		{
			said[++last] = said[i];
			continue;
		}
		said[last].since = Min(said[last].since, said[i].since);
		said[last].mobile |= said[i].mobile;
	}
	store_rows_for(&fresh, "identities", columns, lengthof(columns));
	store_rows_init(&others, columns, lengthof(columns));
	for (int i = 0; i <= last; i++)
	{
		StoreRows  *rows = said[i].record_id >= first_fresh ? &fresh : &others;

		store_put_text(rows, said[i].key);
		store_put(rows, Int64GetDatum(said[i].record_id));
		store_put_time(rows, said[i].since);
		store_put(rows, BoolGetDatum(said[i].mobile));
	}
	store_write(&fresh);
	store_run_rows("INSERT INTO contactsync.identities AS i (key, record_id, first_version, mobile) "
				   "SELECT u.key, u.record_id, u.first_version, u.mobile FROM u "
				   "ON CONFLICT (tenant_id, key, record_id) DO UPDATE SET "
				   "first_version = LEAST(i.first_version, excluded.first_version), mobile = i.mobile OR excluded.mobile "
				   "WHERE excluded.first_version < i.first_version OR (excluded.mobile AND NOT i.mobile)", &others);
}

void
store_save_evidence(StoreEvidence *evidence, StoreRecord *records, int nrecords)
{
	if (evidence->anew.n > 0)
	{
		uint64		n = store_run("DELETE FROM contactsync.identities i USING " STORE_EACH(1)
								  "WHERE i.tenant_id = contactsync.current_tenant() AND i.record_id = u.x "
								  "RETURNING i.record_id, i.key", 1, (StoreArray *[]) {&evidence->anew});

		for (uint64 row = 0; row < n; row++)
		{
			int64		id = store_int8(row, 1);
			StoreRecord *r = records;

			while (r->id != id)
				r++;
			if (r->had == NULL)
			{
				r->had = palloc(sizeof(StoreArray));
				store_array_init(r->had, TEXTOID);
			}
			store_array_add_text(r->had, store_text(row, 2));
		}
	}
	save_assertions(evidence, records, nrecords);
}
