/*
 * store_verify.c
 *		A range of contacts, computed from scratch and compared with what is stored.
 *
 * Contacts are taken by id, some hundreds at a time: their records, all that
 * these are connected with, the observations of all of them, folded, clustered
 * and resolved by the code that process() uses.  A cluster that reaches over
 * several batches is compared in the one with the least contact id that its
 * records bear, so that all is compared once, and memory is a batch's.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "store/store_verify.h"

#define BATCH_CONTACTS	128
#define BATCH_RECORDS	2048
#define BATCH_SIZE		(8 * 1024 * 1024)
#define SCRATCH_SIZE	(256 * 1024)

typedef struct Range
{
	pg_uuid_t	after;			/* exclusive; nothing has the nil id */
	pg_uuid_t	upto;			/* inclusive */
} Range;

/* A batch: the ids in it, and how far it reaches. */
typedef struct Batch
{
	StoreArray	ids;			/* ascending, distinct */
	Range		range;
} Batch;

/* A contact as it is stored. */
typedef struct StoredContact
{
	pg_uuid_t	id;
	Contact    *contact;
	bool		live;
	int64		naming;			/* 0 = none */
	int64		policy_version;
} StoredContact;

typedef struct StoredConflict
{
	pg_uuid_t	id;
	StrView		field;
	StrView		element;
	StrView		state;
	StrView		reason;
	StrView		seen;
	int64		decision;
	Jsonb	   *candidates;
	bool		matched;
} StoredConflict;

static int
id_cmp(const pg_uuid_t *a, const pg_uuid_t *b)
{
	return memcmp(a->data, b->data, UUID_LEN);
}

static int
datum_cmp(const void *a, const void *b)
{
	return id_cmp(DatumGetUUIDP(*(const Datum *) a), DatumGetUUIDP(*(const Datum *) b));
}

static void
report(StoreComparison *c, StoreDifferenceKind kind, const pg_uuid_t *contact, int64 record,
	   const char *field, const char *stored, const char *computed)
{
	StoreDifference d = {kind, *contact, record, field, stored, computed};

	c->report(&d, c->arg);
}

/* ---- what belongs to a batch ---- */

/* Add the ids that a statement gives; where it was cut off, the batch ends. */
static void
add_ids(Batch *b, const char *sql, int limit)
{
	StoreArray	bounds;
	StoreArray	max;
	uint64		n;

	store_array_init(&bounds, UUIDOID);
	store_array_add(&bounds, UUIDPGetDatum(&b->range.after), false);
	store_array_add(&bounds, UUIDPGetDatum(&b->range.upto), false);
	store_array_init(&max, INT4OID);
	store_array_add(&max, Int32GetDatum(limit), false);
	n = store_run(sql, 2, (StoreArray *[]) {&bounds, &max});
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;

		store_array_add(&b->ids, store_value(i, 1, &isnull), false);
	}
	if (n == limit)
		b->range.upto = *DatumGetUUIDP(b->ids.values[b->ids.n - 1]);
}

#define ID_RANGE(table_, column_) \
	"SELECT t." column_ " FROM contactsync." table_ " t WHERE t.tenant_id = contactsync.current_tenant() " \
	"AND t." column_ " > ($1)[1] AND t." column_ " <= ($1)[2] "

/* The next ids of the range that anything stored bears; false if there are none. */
static bool
next_batch(Batch *b, Range range, bool facts)
{
	int			n = 0;

	b->range = range;
	store_array_init(&b->ids, UUIDOID);
	add_ids(b, ID_RANGE("contacts", "id") "ORDER BY t.id LIMIT ($2)[1]", BATCH_CONTACTS);
	if (facts)
	{
		add_ids(b, ID_RANGE("records", "contact_id") "ORDER BY t.contact_id LIMIT ($2)[1]", BATCH_RECORDS);
		add_ids(b, ID_RANGE("conflicts", "contact_id") "AND t.state <> 'superseded' ORDER BY t.contact_id LIMIT ($2)[1]",
				BATCH_RECORDS);
	}
	qsort(b->ids.values, b->ids.n, sizeof(Datum), datum_cmp);
	for (int i = 0; i < b->ids.n; i++)
	{
		if (id_cmp(DatumGetUUIDP(b->ids.values[i]), &b->range.upto) > 0)
			break;
		if (n == 0 || datum_cmp(&b->ids.values[n - 1], &b->ids.values[i]) != 0)
			b->ids.values[n++] = b->ids.values[i];
	}
	b->ids.n = n;
	return n > 0;
}

/* Is this id in the batch's range? */
static bool
in_range(const Batch *b, const pg_uuid_t *id)
{
	return id_cmp(id, &b->range.after) > 0 && id_cmp(id, &b->range.upto) <= 0;
}

/* ---- policies ---- */

/* Keep a policy for the whole comparison. */
static const MergePolicy *
keep_policy(StoreComparison *c, const Jsonb *json, int64 version)
{
	MemoryContext old = MemoryContextSwitchTo(c->context);
	MergePolicy *p = palloc(sizeof(MergePolicy));

	if (json == NULL)
		merge_policy_defaults(p);
	else
		merge_policy_read(memcpy(palloc(VARSIZE(json)), json, VARSIZE(json)), p);
	p->version = version;
	c->policies = c->npolicies ? repalloc(c->policies, sizeof(MergePolicy *) * (c->npolicies + 1)) :
		palloc(sizeof(MergePolicy *));
	c->policies[c->npolicies++] = p;
	MemoryContextSwitchTo(old);
	return p;
}

/* The policy that a contact is to be resolved by; the first one kept is in force. */
static const MergePolicy *
policy_for(StoreComparison *c, const StoredContact *stored)
{
	StoreArray	version;
	bool		isnull;

	if (!c->own_policy || !stored)
		return c->policies[0];
	for (int i = 0; i < c->npolicies; i++)
		if (c->policies[i]->version == stored->policy_version)
			return c->policies[i];
	store_array_init(&version, INT8OID);
	store_array_add(&version, Int64GetDatum(stored->policy_version), false);
	if (store_run("SELECT p.policy FROM contactsync.policies p WHERE p.tenant_id = contactsync.current_tenant() "
				  "AND p.version = ($1)[1]", 1, (StoreArray *[]) {&version}) > 0)
		return keep_policy(c, DatumGetJsonbP(store_value(0, 1, &isnull)), stored->policy_version);
	/* before the first version the defaults were in force */
	return stored->policy_version == 0 ? keep_policy(c, NULL, 0) : c->policies[0];
}

static void
load_policy(StoreComparison *c)
{
	bool		isnull;

	if (c->npolicies > 0)
		return;
	if (c->policy)
		keep_policy(c, DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(c->policy))), 0);
	else if (store_run("SELECT p.version, p.policy FROM contactsync.policies p "
					   "WHERE p.tenant_id = contactsync.current_tenant() ORDER BY p.version DESC LIMIT 1", 0, NULL) == 0)
		keep_policy(c, NULL, 0);
	else
	{
		int64		version = store_int8(0, 1);

		keep_policy(c, DatumGetJsonbP(store_value(0, 2, &isnull)), version);
	}
}

/* ---- records ---- */

/* Two JSON objects of what differs, member by member. */
typedef struct Sides
{
	StringInfoData stored;
	StringInfoData computed;
	int			n;
} Sides;

static void
add_member(Sides *s, const char *name, const char *stored, const char *computed)
{
	const char *value[2] = {stored, computed};
	StringInfo	buf[2] = {&s->stored, &s->computed};

	for (int i = 0; i < 2; i++)
	{
		if (s->n == 0)
			initStringInfo(buf[i]);
		appendStringInfo(buf[i], "%s\"%s\": %s", s->n ? ", " : "{", name, value[i] ? value[i] : "null");
	}
	s->n++;
}

static char *
json_text(const char *text, int len)
{
	StringInfoData buf;

	initStringInfo(&buf);
	escape_json(&buf, pnstrdup(text, len));
	return buf.data;
}

static char *
json_view(StrView v)
{
	return v.ptr ? json_text(v.ptr, v.len) : NULL;
}

static char *
json_time(int64 t)
{
	const char *text;

	if (t == MERGE_TIME_MIN)
		return NULL;
	text = timestamptz_to_str(t);
	return json_text(text, strlen(text));
}

static char *
json_int(int64 n)
{
	return psprintf(INT64_FORMAT, n);
}

static char *
json_uuid(const pg_uuid_t *id)
{
	char	   *text = DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(id)));

	return json_text(text, strlen(text));
}

static char *
json_contact(const ContactValue *v, bool with_provenance)
{
	StringInfoData buf;

	initStringInfo(&buf);
	contact_to_json(&buf, v, with_provenance);
	return buf.data;
}

static char *
json_names(const StoreRecord *r)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoChar(&buf, '[');
	for (int i = 0; i < r->nnames; i++)
		appendStringInfo(&buf, "%s%s", i ? ", " : "", json_view(r->names[i]));
	appendStringInfoChar(&buf, ']');
	return buf.data;
}

static bool
same_bytes(const Contact *a, const Contact *b)
{
	return VARSIZE(a) == VARSIZE(b) && memcmp(a, b, VARSIZE(a)) == 0;
}

static bool
same_names(const StoreRecord *a, const StoreRecord *b)
{
	if (a->nnames != b->nnames)
		return false;
	for (int i = 0; i < a->nnames; i++)
		if (strview_cmp(a->names[i], b->names[i]) != 0)
			return false;
	return true;
}

static void
add_coverage(Sides *s, const char *name, const MergeCoverage *stored, const MergeCoverage *computed)
{
	StrView		a;
	StrView		b;

	if (stored->fields == computed->fields && stored->nelements == 0 && computed->nelements == 0)
		return;
	a = store_coverage_text(stored);
	b = store_coverage_text(computed);
	if (!strview_same(a, b))
		add_member(s, name, json_view(a), json_view(b));
}

static void
add_state(Sides *s, const char *name, const Contact *stored, const ContactValue *computed)
{
	ContactValue was = {0};

	if (stored ? same_bytes(stored, contact_form(computed)) : computed->nitems == 0)
		return;
	if (stored)
		contact_deform(stored, &was);
	/* the same value may have been stored in another form */
	if (!same_bytes(contact_form(&was), contact_form(computed)))
		add_member(s, name, json_contact(&was, true), json_contact(computed, true));
}

static void
compare_fold(Sides *s, const StoreRecord *stored, const StoreRecord *computed)
{
	const MergeRecord *a = &stored->m;
	const MergeRecord *b = &computed->m;
	const struct
	{
		const char *name;
		int64		a;
		int64		b;
	}			times[] = {
		{"created", a->created, b->created},
		{"deleted_at", a->deleted_at, b->deleted_at},
		{"version", a->version, b->version},
		{"source_modified", a->modified, b->modified},
		{"last_effective", a->last.effective, b->last.effective},
	};

	if (a->alive != b->alive)
		add_member(s, "alive", a->alive ? "true" : "false", b->alive ? "true" : "false");
	if (a->zombie != b->zombie)
		add_member(s, "zombie", a->zombie ? "true" : "false", b->zombie ? "true" : "false");
	for (int i = 0; i < lengthof(times); i++)
		if (times[i].a != times[i].b)
			add_member(s, times[i].name, json_time(times[i].a), json_time(times[i].b));
	if (b->last.effective != MERGE_TIME_MIN)
	{
		if (a->last.raw != b->last.raw)
			add_member(s, "last_raw", json_time(a->last.raw), json_time(b->last.raw));
		if (a->last.seq != b->last.seq)
			add_member(s, "last_seq", json_int(a->last.seq), json_int(b->last.seq));
		if (memcmp(a->last.digest, b->last.digest, MERGE_DIGEST_LEN) != 0)
			add_member(s, "last_digest", "\"another\"", "\"another\"");
	}
	if (a->same_version_conflicts != b->same_version_conflicts)
		add_member(s, "same_version_conflicts", json_int(a->same_version_conflicts), json_int(b->same_version_conflicts));
	if (!strview_same(a->merged_into, b->merged_into))
		add_member(s, "merged_into", json_view(a->merged_into), json_view(b->merged_into));
	add_coverage(s, "covered", &a->covered, &b->covered);
	add_coverage(s, "uncovered", &a->uncovered, &b->uncovered);
	if (!same_names(stored, computed))
		add_member(s, "names", json_names(stored), json_names(computed));
	add_state(s, "state", stored->stored_state, &b->state);
	add_state(s, "cleared", stored->stored_cleared, &b->cleared);
}

bool
store_fold_differs(const StoreRecord *stored, const StoreRecord *computed)
{
	Sides		sides = {0};

	compare_fold(&sides, stored, computed);
	return sides.n > 0;
}

/* A key that a record asserts. */
typedef struct Key
{
	int64		record;
	StrView		key;
	int64		since;
} Key;

static int
key_cmp(const void *x, const void *y)
{
	const Key  *a = x;
	const Key  *b = y;
	int			r;

	if (a->record != b->record)
		return a->record < b->record ? -1 : 1;
	if ((r = strview_cmp(a->key, b->key)) != 0)
		return r;
	return a->since < b->since ? -1 : a->since > b->since;
}

/* Each key once, with the earliest version that asserted it. */
static Key *
computed_keys(const StoreEvidence *evidence, int *n)
{
	Key		   *keys = palloc(sizeof(Key) * Max(evidence->keys.n, 1));
	int			total = evidence->keys.n;

	for (int i = 0; i < total; i++)
	{
		text	   *t = DatumGetTextPP(evidence->keys.values[i]);

		keys[i].record = DatumGetInt64(evidence->records.values[i]);
		keys[i].key = strview(VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
		keys[i].since = DatumGetTimestampTz(evidence->since.values[i]);
	}
	qsort(keys, total, sizeof(Key), key_cmp);
	*n = 0;
	for (int i = 0; i < total; i++)
		if (*n == 0 || keys[*n - 1].record != keys[i].record || strview_cmp(keys[*n - 1].key, keys[i].key) != 0)
			keys[(*n)++] = keys[i];
	return keys;
}

static Key *
stored_keys(const StoreLinks *links, int *n)
{
	Key		   *keys;

	*n = 0;
	for (int i = 0; i < links->n; i++)
		*n += links->who[i].nkeys;
	keys = palloc(sizeof(Key) * Max(*n, 1));
	*n = 0;
	for (int i = 0; i < links->n; i++)
	{
		for (int k = 0; k < links->who[i].nkeys; k++)
		{
			const IdentityKey *key = &links->who[i].keys[k];

			keys[(*n)++] = (Key) {links->members[i].id, key->key, key->first_version};
		}
	}
	qsort(keys, *n, sizeof(Key), key_cmp);
	return keys;
}

static char *
json_keys(const Key *keys, int n)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoChar(&buf, '{');
	for (int i = 0; i < n; i++)
		appendStringInfo(&buf, "%s%s: %s", i ? ", " : "", json_view(keys[i].key), json_time(keys[i].since));
	appendStringInfoChar(&buf, '}');
	return buf.data;
}

/* Where the keys of a record lie in a sorted array, and how many they are. */
static int
keys_of(const Key *keys, int n, int64 record, int *count)
{
	int			lo = 0;
	int			hi = n;

	while (lo < hi)
	{
		int			mid = (lo + hi) / 2;

		if (keys[mid].record < record)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (*count = 0; lo + *count < n && keys[lo + *count].record == record;)
		(*count)++;
	return lo;
}

static void
compare_keys(Sides *s, int64 record, const Key *stored, int nstored, const Key *computed, int ncomputed)
{
	int			na;
	int			nb;
	const Key  *a = &stored[keys_of(stored, nstored, record, &na)];
	const Key  *b = &computed[keys_of(computed, ncomputed, record, &nb)];
	bool		same = na == nb;

	for (int i = 0; i < na && same; i++)
		same = key_cmp(&a[i], &b[i]) == 0;
	if (!same)
		add_member(s, "identities", json_keys(a, na), json_keys(b, nb));
}

static char *
record_field(const StoreRecord *r)
{
	return psprintf("record:%.*s/%.*s", r->source.len, r->source.ptr, r->source_id.len, r->source_id.ptr);
}

/* ---- contacts ---- */

static StoredContact *
load_contacts(StoreArray *ids, int *n)
{
	uint64		rows = store_run("SELECT c.id, c.contact, c.live, c.naming_record, c.policy_version FROM "
								 STORE_EACH_ROW(1, "contacts", "id", "c"), 1, (StoreArray *[]) {ids});
	StoredContact *stored = palloc(sizeof(StoredContact) * Max(rows, 1));

	for (uint64 i = 0; i < rows; i++)
	{
		bool		isnull;

		stored[i].id = *DatumGetUUIDP(store_value(i, 1, &isnull));
		stored[i].contact = DatumGetContactP(store_value(i, 2, &isnull));
		stored[i].live = DatumGetBool(store_value(i, 3, &isnull));
		stored[i].naming = store_int8(i, 4);
		stored[i].policy_version = store_int8(i, 5);
	}
	/* the id leads both */
	qsort(stored, rows, sizeof(StoredContact), (int (*) (const void *, const void *)) id_cmp);
	*n = rows;
	return stored;
}

static StoredConflict *
load_conflicts(StoreArray *ids, int *n)
{
	uint64		rows = store_run("SELECT k.contact_id, k.field, k.element, k.state, k.seen, k.decision_id, k.candidates, k.reason FROM "
								 STORE_EACH_ROW(1, "conflicts", "contact_id", "k") "WHERE k.state <> 'superseded'",
								 1, (StoreArray *[]) {ids});
	StoredConflict *stored = palloc0(sizeof(StoredConflict) * Max(rows, 1));

	for (uint64 i = 0; i < rows; i++)
	{
		bool		isnull;

		stored[i].id = *DatumGetUUIDP(store_value(i, 1, &isnull));
		stored[i].field = store_text(i, 2);
		stored[i].element = store_text(i, 3);
		stored[i].state = store_text(i, 4);
		stored[i].seen = store_text(i, 5);
		stored[i].decision = store_int8(i, 6);
		stored[i].candidates = DatumGetJsonbP(store_value(i, 7, &isnull));
		stored[i].reason = store_text(i, 8);
	}
	qsort(stored, rows, sizeof(StoredConflict), (int (*) (const void *, const void *)) id_cmp);
	*n = rows;
	return stored;
}

static StoredContact *
find_contact(StoredContact *stored, int n, const pg_uuid_t *id)
{
	return bsearch(id, stored, n, sizeof(StoredContact), (int (*) (const void *, const void *)) id_cmp);
}

/* Where the conflicts of a contact begin. */
static int
first_conflict(const StoredConflict *stored, int n, const pg_uuid_t *id)
{
	int			lo = 0;
	int			hi = n;

	while (lo < hi)
	{
		int			mid = (lo + hi) / 2;

		if (id_cmp(&stored[mid].id, id) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static char *
field_json(const ContactValue *v, ContactField f)
{
	StringInfoData buf;

	initStringInfo(&buf);
	return v && contact_field_to_json(&buf, v, f) ? buf.data : NULL;
}

/* Report the fields whose values differ; how many there are. */
static int
compare_values(StoreComparison *c, const pg_uuid_t *id, const ContactValue *stored, const ContactValue *computed)
{
	int			n = 0;

	for (int f = 0; f < CF_COUNT; f++)
	{
		char	   *a = field_json(stored, f);
		char	   *b = field_json(computed, f);

		if (a == b || (a && b && strcmp(a, b) == 0))
			continue;
		report(c, SD_FIELD, id, 0, contact_field_names[f], a, b);
		n++;
	}
	return n;
}

static char *
json_provenance(const Contact *contact)
{
	ContactValue v;
	StringInfoData buf;

	contact_deform(contact, &v);
	initStringInfo(&buf);
	contact_provenance_to_json(&buf, &v, false);
	return buf.data;
}

static void
compare_contact(StoreComparison *c, const pg_uuid_t *id, StoredContact *stored,
				const MergeResult *result, const MergeInput *inputs)
{
	Contact    *computed = contact_form(&result->contact);
	int64		naming = result->naming_input >= 0 ? inputs[result->naming_input].record_id : 0;
	ContactValue was;

	if (stored == NULL)
	{
		report(c, SD_MISSING, id, 0, "contact", NULL, json_contact(&result->contact, true));
		return;
	}
	if (stored->live != result->live)
		report(c, SD_FIELD, id, 0, "live", stored->live ? "true" : "false", result->live ? "true" : "false");
	if (!same_bytes(stored->contact, computed))
	{
		contact_deform(stored->contact, &was);
		if (compare_values(c, id, &was, &result->contact) == 0 && c->policy == NULL)
			report(c, SD_FIELD, id, 0, "provenance", json_provenance(stored->contact), json_provenance(computed));
	}
	if (stored->naming != naming && c->policy == NULL)
		report(c, SD_FIELD, id, 0, "naming_record", stored->naming ? json_int(stored->naming) : NULL,
			   naming ? json_int(naming) : NULL);
}

/* A cell as rebuild() and what_if() name it. */
static char *
conflict_field(StrView field, StrView element)
{
	return psprintf("conflict:%.*s%s%.*s", field.len, field.ptr,
					element.len == 0 ? "" : strview_same(field, strview_of("metadata")) ? "." : ":",
					element.len, element.len ? element.ptr : "");
}

static char *
stored_conflict_json(const StoredConflict *k)
{
	return psprintf("{\"state\": %s, \"seen\": %s, \"decision\": %s, \"candidates\": %s}",
					json_view(k->state), json_view(k->seen), k->decision ? json_int(k->decision) : "null",
					JsonbToCString(NULL, &k->candidates->root, VARSIZE(k->candidates)));
}

static bool
is_settled(const StoredConflict *k)
{
	return strview_same(k->state, strview_of("resolved"));
}

static void
compare_conflicts(StoreComparison *c, const pg_uuid_t *id, StoredConflict *stored, int nstored,
				  const MergeResult *result, const MergeInput *inputs)
{
	int			first = first_conflict(stored, nstored, id);

	for (int i = 0; i < result->nconflicts; i++)
	{
		const MergeConflict *conflict = &result->conflicts[i];
		StrView		field = strview_of(store_conflict_field(conflict));
		StrView		element = conflict->key.ptr ? conflict->key : strview_of("");
		StoredConflict *k = NULL;
		char	   *candidates;
		Jsonb	   *json;
		char	   *seen;

		for (int j = first; j < nstored && id_cmp(&stored[j].id, id) == 0; j++)
			if (strview_same(stored[j].field, field) && strview_same(stored[j].element, element))
				k = &stored[j];
		if (k)
			k->matched = true;
		if (c->policy)
		{
			bool		was_open = k && !is_settled(k);

			if (was_open != conflict->open)
				report(c, SD_CONFLICT, id, 0, conflict_field(field, element), was_open ? "\"open\"" : NULL,
					   conflict->open ? "\"open\"" : NULL);
			continue;
		}
		candidates = store_candidates_json(conflict, inputs);
		seen = store_seen_text(conflict);
		json = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(candidates)));
		if (k && is_settled(k) != conflict->open && strview_same(k->reason, strview_of(merge_reason_names[conflict->reason])) && strview_same(k->seen, strview_of(seen)) &&
			k->decision == conflict->decision_id && compareJsonbContainers(&k->candidates->root, &json->root) == 0)
			continue;
		report(c, SD_CONFLICT, id, 0, conflict_field(field, element), k ? stored_conflict_json(k) : NULL,
			   psprintf("{\"state\": \"%s\", \"seen\": \"%s\", \"decision\": %s, \"candidates\": %s}",
						conflict->open ? "open" : "resolved", seen,
						conflict->decision_id ? json_int(conflict->decision_id) : "null", candidates));
	}
	for (int j = first; j < nstored && id_cmp(&stored[j].id, id) == 0; j++)
	{
		if (stored[j].matched || (c->policy && is_settled(&stored[j])))
			continue;
		report(c, SD_CONFLICT, id, 0, conflict_field(stored[j].field, stored[j].element),
			   c->policy ? "\"open\"" : stored_conflict_json(&stored[j]), NULL);
		stored[j].matched = true;
	}
}

/* ---- batches ---- */

/*
 * For what one contact takes.  Its first block stays when it is reset, so that
 * what a contact needs is taken from the system once, and is in the cache.
 */
static MemoryContext
scratch_context(void)
{
	return AllocSetContextCreate(CurrentMemoryContext, "contactsync comparison of a contact",
								 SCRATCH_SIZE, SCRATCH_SIZE, ALLOCSET_DEFAULT_MAXSIZE);
}

/* All that a contact is made of, resolved and compared. */
static void
compare_resolved(StoreComparison *c, const pg_uuid_t *id, MergeInput *inputs, int ninputs,
				 MergeDecision *decisions, int ndecisions, int64 **members,
				 StoredContact *stored, StoredConflict *conflicts, int nconflicts)
{
	const MergePolicy *policy = policy_for(c, stored);
	MergeResult result;

	if (policy != c->policies[0])
	{
		/* which cell a decision is about is a matter of the policy */
		StoreArray	records;

		store_array_init(&records, INT8OID);
		for (int i = 0; i < ninputs; i++)
			store_array_add(&records, Int64GetDatum(inputs[i].record_id), false);
		store_decisions(policy, &records, &decisions, &ndecisions, &members);
	}
	store_resolve_one(policy, inputs, ninputs, decisions, ndecisions, members, &result);
	compare_contact(c, id, stored, &result, inputs);
	compare_conflicts(c, id, conflicts, nconflicts, &result, inputs);
}

/* Does the cluster of a member belong to this batch?  NULL = that of records without contact. */
static bool *
owned_clusters(const StoreLinks *links, const StoreRecord *stored, const Batch *b)
{
	bool	   *owned = palloc0(sizeof(bool) * Max(links->n, 1));
	const pg_uuid_t **least = palloc0(sizeof(*least) * Max(links->n, 1));
	bool	   *unlinked = palloc0(sizeof(bool) * Max(links->n, 1));

	for (int i = 0; i < links->n; i++)
	{
		int			k = links->who[i].cluster;

		unlinked[k] |= !stored[i].has_contact;
		if (stored[i].has_contact && (!least[k] || id_cmp(&stored[i].contact_id, least[k]) < 0))
			least[k] = &stored[i].contact_id;
	}
	for (int k = 0; k < links->n; k++)
		owned[k] = b == NULL ? unlinked[k] : !unlinked[k] && least[k] && in_range(b, least[k]);
	return owned;
}

static int
member_cluster_cmp(const void *x, const void *y, void *arg)
{
	const StoreLinks *links = arg;
	int			a = *(const int *) x;
	int			b = *(const int *) y;

	if (links->who[a].cluster != links->who[b].cluster)
		return links->who[a].cluster - links->who[b].cluster;
	return a - b;
}

/* Compare all that these records belong to; b NULL: what has records without contact. */
static void
compare_records(StoreComparison *c, StoreArray *seeds, const Batch *b)
{
	static const pg_uuid_t nil;
	StoreLinks	links;
	StoreRecord *stored;
	StoreEvidence evidence;
	StoreArray	members;
	StoreArray	contacts;
	MergeDecision *decisions;
	int64	  **decided;
	int			ndecisions;
	Key		   *skeys;
	Key		   *ckeys;
	int			nskeys;
	int			nckeys;
	StoredContact *rows;
	int			nrows;
	StoredConflict *conflicts;
	int			nconflicts;
	bool	   *owned;
	int		   *order;
	MemoryContext scratch;
	MemoryContext outside;

	store_connect(seeds, &links);
	stored = palloc(sizeof(StoreRecord) * Max(links.n, 1));
	memcpy(stored, links.members, sizeof(StoreRecord) * links.n);
	store_array_init(&members, INT8OID);
	store_evidence_init(&evidence);
	for (int i = 0; i < links.n; i++)
	{
		links.members[i].refold = links.members[i].restamped = true;
		store_array_add(&members, Int64GetDatum(links.members[i].id), false);
	}
	store_fold(links.members, links.n, &evidence);
	ckeys = computed_keys(&evidence, &nckeys);
	skeys = stored_keys(&links, &nskeys);
	store_cluster(&links, false);
	store_decisions(c->policies[0], &members, &decisions, &ndecisions, &decided);

	owned = owned_clusters(&links, stored, b);
	store_array_init(&contacts, UUIDOID);
	order = palloc(sizeof(int) * Max(links.n, 1));
	for (int i = 0; i < links.n; i++)
	{
		order[i] = i;
		if (owned[links.who[i].cluster])
			store_array_add(&contacts, UUIDPGetDatum(&links.contact[links.who[i].cluster]), false);
	}
	for (int i = 0; b && i < b->ids.n; i++)
		store_array_add(&contacts, b->ids.values[i], false);
	rows = load_contacts(&contacts, &nrows);
	conflicts = load_conflicts(&contacts, &nconflicts);

	qsort_arg(order, links.n, sizeof(int), member_cluster_cmp, &links);
	scratch = scratch_context();
	outside = MemoryContextSwitchTo(scratch);
	for (int from = 0, to; from < links.n; from = to)
	{
		int			cluster = links.who[order[from]].cluster;
		const pg_uuid_t *id = &links.contact[cluster];
		MergeInput *inputs;

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(scratch);
		for (to = from; to < links.n && links.who[order[to]].cluster == cluster;)
			to++;
		if (!owned[cluster])
			continue;
		inputs = palloc0(sizeof(MergeInput) * (to - from));
		for (int k = from; k < to; k++)
		{
			const StoreRecord *was = &stored[order[k]];
			const StoreRecord *is = &links.members[order[k]];
			Sides		sides = {0};

			store_input(is, &inputs[k - from]);
			compare_fold(&sides, was, is);
			compare_keys(&sides, is->id, skeys, nskeys, ckeys, nckeys);
			if (!was->has_contact || id_cmp(&was->contact_id, id) != 0)
				add_member(&sides, "contact_id", was->has_contact ? json_uuid(&was->contact_id) : NULL,
						   id_cmp(id, &nil) == 0 ? NULL : json_uuid(id));
			if (sides.n == 0)
				continue;
			appendStringInfoChar(&sides.stored, '}');
			appendStringInfoChar(&sides.computed, '}');
			report(c, SD_RECORD, was->has_contact ? &was->contact_id : id, is->id, record_field(is),
				   sides.stored.data, sides.computed.data);
		}
		if (id_cmp(id, &nil) != 0)
			compare_resolved(c, id, inputs, to - from, decisions, ndecisions, decided,
							 find_contact(rows, nrows, id), conflicts, nconflicts);
	}

	MemoryContextSwitchTo(outside);
	MemoryContextDelete(scratch);

	/* stored contacts whose id none of these clusters bears */
	for (int i = 0; b && i < b->ids.n; i++)
	{
		const pg_uuid_t *id = DatumGetUUIDP(b->ids.values[i]);
		StoredContact *row = find_contact(rows, nrows, id);
		MergeResult nothing = {0};
		bool		found = false;
		ContactValue v;

		for (int k = 0; k < links.n && !found; k++)
			found = links.who[k].cluster == k && id_cmp(&links.contact[k], id) == 0;
		if (found)
			continue;
		/* one that is gone may stay as a dead one: see contact_aliases.reused_at */
		if (row && row->live)
		{
			contact_deform(row->contact, &v);
			report(c, SD_ORPHAN, id, 0, "contact", json_contact(&v, true), NULL);
		}
		compare_conflicts(c, id, conflicts, nconflicts, &nothing, NULL);
	}
}

static void
compare_facts(StoreComparison *c, const Batch *b)
{
	StoreArray	seeds;
	StoreArray	ids = b->ids;
	uint64		n;

	store_array_init(&seeds, INT8OID);
	n = store_run("SELECT r.id FROM " STORE_EACH_ROW(1, "records", "contact_id", "r")
				  "UNION SELECT a.record_id FROM " STORE_EACH_ROW(1, "contact_aliases", "id", "a"),
				  1, (StoreArray *[]) {&ids});
	for (uint64 i = 0; i < n; i++)
		store_array_add(&seeds, Int64GetDatum(store_int8(i, 1)), false);
	compare_records(c, &seeds, b);
}

/* The stored records, by another policy. */
static void
compare_policy(StoreComparison *c, const Batch *b)
{
	StoreArray	ids = b->ids;
	StoreArray	members;
	MergeInput **inputs;
	int		   *ninputs;
	pg_uuid_t  *contact;
	MergeDecision *decisions;
	int64	  **decided;
	int			ndecisions;
	StoredContact *rows;
	int			nrows;
	StoredConflict *conflicts;
	int			nconflicts;
	int			n = 0;
	StoreRecord **records;
	int			nrecords;
	MemoryContext scratch;
	MemoryContext outside;

	records = store_records_by_contact(&ids, &nrecords);
	inputs = palloc(sizeof(MergeInput *) * Max(nrecords, 1));
	ninputs = palloc(sizeof(int) * Max(nrecords, 1));
	contact = palloc(sizeof(pg_uuid_t) * Max(nrecords, 1));
	store_array_init(&members, INT8OID);
	for (int row = 0; row < nrecords; n++)
	{
		row = store_inputs(records, nrecords, row, &contact[n], &inputs[n], &ninputs[n]);
		for (int i = 0; i < ninputs[n]; i++)
			store_array_add(&members, Int64GetDatum(inputs[n][i].record_id), false);
	}
	store_decisions(c->policies[0], &members, &decisions, &ndecisions, &decided);
	rows = load_contacts(&ids, &nrows);
	conflicts = load_conflicts(&ids, &nconflicts);
	scratch = scratch_context();
	outside = MemoryContextSwitchTo(scratch);
	for (int k = 0; k < n; k++)
	{
		StoredContact *row = find_contact(rows, nrows, &contact[k]);

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(scratch);
		if (row)
			compare_resolved(c, &contact[k], inputs[k], ninputs[k], decisions, ndecisions, decided,
							 row, conflicts, nconflicts);
	}
	MemoryContextSwitchTo(outside);
	MemoryContextDelete(scratch);
}

void
store_compare_unlinked(StoreComparison *c)
{
	int64		after = 0;
	uint64		n;

	do
	{
		StoreArray	from;
		StoreArray	seeds;

		if (SPI_connect() != SPI_OK_CONNECT)
			elog(ERROR, "could not connect to SPI");
		store_array_init(&from, INT8OID);
		store_array_add(&from, Int64GetDatum(after), false);
		store_array_init(&seeds, INT8OID);
		n = store_run("SELECT r.id FROM contactsync.records r WHERE r.tenant_id = contactsync.current_tenant() "
					  "AND r.contact_id IS NULL AND r.id > ($1)[1] ORDER BY r.id LIMIT 256",
					  1, (StoreArray *[]) {&from});
		for (uint64 i = 0; i < n; i++)
			store_array_add(&seeds, Int64GetDatum(after = store_int8(i, 1)), false);
		if (n > 0)
		{
			load_policy(c);
			compare_records(c, &seeds, NULL);
		}
		SPI_finish();
	} while (n > 0);
}

void
store_compare_range(StoreComparison *c, const pg_uuid_t *after, const pg_uuid_t *upto)
{
	Range		range = {*after, *upto};
	Batch		b;
	bool		more;
	/* whose first block stays, too */
	MemoryContext memory = AllocSetContextCreate(CurrentMemoryContext, "contactsync comparison",
												 BATCH_SIZE, ALLOCSET_DEFAULT_INITSIZE, BATCH_SIZE);

	do
	{
		CHECK_FOR_INTERRUPTS();
		if (SPI_connect() != SPI_OK_CONNECT)
			elog(ERROR, "could not connect to SPI");
		MemoryContextSwitchTo(memory);
		more = next_batch(&b, range, c->policy == NULL);
		if (more)
		{
			load_policy(c);
			if (c->policy)
				compare_policy(c, &b);
			else
				compare_facts(c, &b);
		}
		range.after = b.range.upto;
		SPI_finish();
		MemoryContextReset(memory);
		if (c->idle)
			c->idle(c->arg);
	} while (more && id_cmp(&range.after, &range.upto) < 0);
	MemoryContextDelete(memory);
}
