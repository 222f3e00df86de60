/*
 * merge.c
 *		src/merge: the result depends on what was said, and on nothing else.
 *
 * The input is read as the observations of a few records, some policy and some
 * decisions, all out of small stocks, so that they meet.  Folding, resolving and clustering
 * them must give the same in any order, with duplicates, and step by step.
 */
#include "fuzz.h"

#include "common/hashfn.h"
#include "merge/merge.h"

#define MAX_RECORDS			4
#define MAX_OBSERVATIONS	10
#define MAX_DECISIONS		4
#define ORDERS				3

typedef struct Input
{
	const uint8 *p;
	const uint8 *end;
	uint32		state;			/* of the orders to try */
} Input;

static int
next(Input *in, int n)
{
	return in->p < in->end ? *in->p++ % n : 0;
}

static int
any(Input *in, int n)
{
	in->state = in->state * 1103515245 + 12345;
	return (in->state >> 16) % n;
}

#define PICK(in_, array_)	((array_)[next(in_, lengthof(array_))])

/* ---- what is read ---- */

static const char *const scalars[] = {"first_name", "last_name", "company", "department", "title", "note", "birthday"};
static const char *const values[] = {"\"a\"", "\"b\"", "\"\"", "null", "\"A\"", "\"c d\""};
static const char *const mails[] = {
	"\"a@x.org\"", "\"b@x.org\"", "\"A@x.org\"", "{\"address\": \"a@x.org\", \"primary\": true}",
	"{\"address\": \"b@x.org\", \"type\": \"work\", \"verified\": true}",
	"{\"address\": \"c@x.org\", \"primary\": true, \"verified\": false}"
};
static const char *const phones[] = {
	"\"+16502530000\"", "{\"number\": \"+1 650 253 0000\", \"type\": \"work\"}", "\"5550100\"",
	"{\"number\": \"+442079460958\", \"primary\": true}"
};
static const char *const tags[] = {"\"t\"", "\"u\"", "\"T\""};
static const char *const metadata[] = {
	"{}", "{\"k\": 1}", "{\"k\": 2, \"l\": \"x\"}", "{\"k\": null}", "null", "{\"l\": [1]}"
};

static void
put_list(Input *in, StringInfo buf, const char *const *elements, int n)
{
	appendStringInfoChar(buf, '[');
	for (int i = next(in, 4); i > 0; i--)
		appendStringInfo(buf, "%s%s", elements[next(in, n)], i > 1 ? ", " : "");
	appendStringInfoChar(buf, ']');
}

static void
put_list_or_edit(Input *in, StringInfo buf, bool patch, const char *const *elements, int n)
{
	switch (patch ? next(in, 4) : 0)
	{
		case 0:
		case 1:
			put_list(in, buf, elements, n);
			break;
		case 2:
			appendStringInfoString(buf, "null");
			break;
		default:
			appendStringInfoString(buf, "{\"add\": ");
			put_list(in, buf, elements, n);
			appendStringInfoString(buf, ", \"remove\": ");
			put_list(in, buf, elements, n);
			appendStringInfoChar(buf, '}');
	}
}

static char *
read_document(Input *in, bool patch)
{
	StringInfoData buf;
	int			members = next(in, 6);

	initStringInfo(&buf);
	appendStringInfoChar(&buf, '{');
	for (int i = 0; i < members; i++)
	{
		int			which = next(in, lengthof(scalars) + 4);

		if (i > 0)
			appendStringInfoString(&buf, ", ");
		if (which < lengthof(scalars))
			appendStringInfo(&buf, "\"%s\": %s", scalars[which], PICK(in, values));
		else if (which == lengthof(scalars))
		{
			appendStringInfoString(&buf, "\"emails\": ");
			put_list_or_edit(in, &buf, patch, mails, lengthof(mails));
		}
		else if (which == lengthof(scalars) + 1)
		{
			appendStringInfoString(&buf, "\"phones\": ");
			put_list_or_edit(in, &buf, patch, phones, lengthof(phones));
		}
		else if (which == lengthof(scalars) + 2)
		{
			appendStringInfoString(&buf, "\"tags\": ");
			put_list_or_edit(in, &buf, patch, tags, lengthof(tags));
		}
		else
			appendStringInfo(&buf, "\"metadata\": %s", PICK(in, metadata));
	}
	appendStringInfoChar(&buf, '}');
	return buf.data;
}

/* Let a snapshot speak about more fields than it names. */
static void
cover(ContactClaims *claims, uint32 fields)
{
	int			n = 0;

	claims->covers |= fields;
	for (int i = 0; i < claims->nelements; i++)
		if (!(fields & CF_BIT(claims->elements[i].field)))
			claims->elements[n++] = claims->elements[i];
	claims->nelements = n;
}

static void
read_observation(Input *in, MergeObservation *o)
{
	static const uint32 covers[] = {0, 0x3FFFF, 0x0FFF, 0x3F000};
	ContactError error;
	char	   *text;
	StringInfoData all;

	memset(o, 0, sizeof(*o));
	o->kind = next(in, 8);
	o->kind = o->kind < 4 ? MK_SNAPSHOT : o->kind < 6 ? MK_PATCH : o->kind == 6 ? MK_DELETE : MK_UNDELETE;
	o->effective = 1 + next(in, 8);
	o->raw = o->effective + next(in, 2);
	o->seq = next(in, 2);
	o->inferred = o->kind == MK_DELETE && next(in, 2);
	o->created = next(in, 3) == 0 ? 1 + next(in, 8) : MERGE_TIME_MIN;
	o->modified = next(in, 4) == 0 ? 1 + next(in, 8) : MERGE_TIME_MIN;
	text = o->kind == MK_DELETE || (o->kind == MK_UNDELETE && next(in, 2)) ? "{}" : read_document(in, o->kind == MK_PATCH);
	FUZZ_CHECK(contact_claims_from_jsonb(fuzz_jsonb(text), o->kind == MK_PATCH, &o->claims, &error));
	if (o->kind == MK_SNAPSHOT)
		cover(&o->claims, PICK(in, covers));

	/* a digest is one of the whole observation */
	initStringInfo(&all);
	appendStringInfo(&all, "%d %d " INT64_FORMAT " " INT64_FORMAT " %x %s", o->kind, o->inferred,
					 o->created, o->modified, o->claims.covers, text);
	for (int half = 0; half < 2; half++)
	{
		uint64		h = hash_bytes_extended((unsigned char *) all.data, all.len, half + 1);

		memcpy(o->digest + 8 * half, &h, 8);
	}
}

static MergePolicy *
read_policy(Input *in)
{
	static const char *const cells[] = {"name", "job", "note", "emails", "phones", "tags", "metadata", "metadata.k", "emails.primary", "birthday"};
	static const char *const rules[] = {
		"\"last_write_wins\"", "{\"rule\": \"source_priority\", \"sources\": [\"s1\", \"c0\"]}",
		"{\"rule\": \"source_priority\", \"sources\": [\"s2\"], \"only\": true}", "\"manual_review\"", "\"most_frequent\"",
		"\"verified_first\"", "\"oldest\"", "\"most_complete\"", "\"union\""
	};
	MergePolicy *policy = palloc0(sizeof(MergePolicy));

	for (int tries = 0; tries < 3; tries++)
	{
		StringInfoData buf;
		ContactError error;
		int			n = next(in, 5);

		initStringInfo(&buf);
		appendStringInfoChar(&buf, '{');
		for (int i = 0; i < n; i++)
			appendStringInfo(&buf, "%s\"%s\": %s", i > 0 ? ", " : "", PICK(in, cells), PICK(in, rules));
		appendStringInfoChar(&buf, '}');
		/* meaningless pairs are refused */
		if (merge_policy_from_jsonb(fuzz_jsonb(buf.data), policy, &error))
			return policy;
	}
	merge_policy_defaults(policy);
	return policy;
}

/* ---- what must be equal ---- */

static void
check_same_value(const ContactValue *a, const ContactValue *b, const char *what)
{
	Contact    *x = contact_form(a);
	Contact    *y = contact_form(b);

	if (VARSIZE(x) != VARSIZE(y) || memcmp(x, y, VARSIZE(x)) != 0)
	{
		StringInfoData text;

		for (int i = 0; i < 2; i++)
		{
			initStringInfo(&text);
			contact_provenance_to_json(&text, i ? b : a, true);
			fuzz_show(what, i ? b : a);
			fprintf(stderr, "%s\n", text.data);
		}
	}
	FUZZ_CHECK(VARSIZE(x) == VARSIZE(y) && memcmp(x, y, VARSIZE(x)) == 0);
}

static void
check_same_coverage(const MergeCoverage *a, const MergeCoverage *b)
{
	FUZZ_CHECK(a->fields == b->fields && a->nelements == b->nelements);
	for (int i = 0; i < a->nelements; i++)
		FUZZ_CHECK(contact_item_cmp(&a->elements[i], &b->elements[i]) == 0);
}

static void
check_same_record(const MergeRecord *a, const MergeRecord *b)
{
	FUZZ_CHECK(a->alive == b->alive && a->zombie == b->zombie);
	FUZZ_CHECK(a->created == b->created && a->deleted_at == b->deleted_at);
	FUZZ_CHECK(a->version == b->version && a->modified == b->modified);
	FUZZ_CHECK(a->last.effective == b->last.effective && a->last.raw == b->last.raw && a->last.seq == b->last.seq);
	FUZZ_CHECK(memcmp(a->last.digest, b->last.digest, MERGE_DIGEST_LEN) == 0);
	FUZZ_CHECK(a->reused.effective == b->reused.effective);
	FUZZ_CHECK(strview_same(a->merged_into, b->merged_into));
	FUZZ_CHECK(a->same_version_conflicts == b->same_version_conflicts);
	check_same_coverage(&a->covered, &b->covered);
	check_same_coverage(&a->uncovered, &b->uncovered);
	check_same_value(&a->state, &b->state, "state");
}

static void
shuffle(Input *in, void *array, int n, Size size)
{
	char	   *p = array;
	char	   *swap = palloc(size);

	for (int i = n - 1; i > 0; i--)
	{
		int			j = any(in, i + 1);

		memcpy(swap, p + i * size, size);
		memmove(p + i * size, p + j * size, size);
		memcpy(p + j * size, swap, size);
	}
}

/* ---- one record ---- */

typedef struct Said
{
	int			nobs;
	MergeObservation obs[MAX_OBSERVATIONS];
	MergeSightings sightings;
} Said;

static int
observation_cmp(const void *a, const void *b)
{
	return merge_observation_cmp(a, b);
}

static void
check_fold(Input *in, const Said *said, StrView source, MergeRecord *record)
{
	MergeObservation obs[2 * MAX_OBSERVATIONS];
	MergeRecord other;

	memcpy(obs, said->obs, sizeof(said->obs));
	merge_fold(obs, said->nobs, said->sightings, source, record);
	fuzz_check_value(&record->state);
	for (int i = 0; i < ORDERS; i++)
	{
		int			n = said->nobs;

		memcpy(obs, said->obs, sizeof(said->obs));
		while (i > 0 && n < lengthof(obs) && any(in, 3) > 0)
			obs[n++] = said->obs[any(in, said->nobs)];
		shuffle(in, obs, n, sizeof(obs[0]));
		merge_fold(obs, n, said->sightings, source, &other);
		check_same_record(record, &other);
	}

	/* in order, one by one, wherever a step is possible */
	memcpy(obs, said->obs, sizeof(said->obs));
	qsort(obs, said->nobs, sizeof(obs[0]), observation_cmp);
	for (int n = 1; n < said->nobs; n++)
	{
		MergeObservation some[MAX_OBSERVATIONS];
		MergeRecord stepped;

		memcpy(some, obs, sizeof(some));
		merge_fold(some, n, said->sightings, source, &stepped);
		if (!merge_fold_step(&stepped, &obs[n], source))
			continue;
		memcpy(some, obs, sizeof(some));
		merge_fold(some, n + 1, said->sightings, source, &other);
		check_same_record(&other, &stepped);
	}
}

/* ---- one contact ---- */

/* A decision on some cell, for some of the records; false if it is about nothing. */
static bool
read_decision(Input *in, const MergePolicy *policy, const MergeInput *inputs, int ninputs, int number, MergeDecision *d)
{
	static const struct
	{
		const char *name;
		const char *element;
		const char *before;
		const char *const *values;
		int			nvalues;
		const char *after;
	}			cells[] =
	{
		{"note", "", "{\"note\": ", values, lengthof(values), "}"},
		{"title", "", "{\"title\": ", values, lengthof(values), "}"},
		{"job", "", "{\"title\": \"b\", \"company\": ", values, lengthof(values), "}"},
		{"name", "", "{\"first_name\": \"a\", \"last_name\": ", values, lengthof(values), "}"},
		{"last_name", "", "{\"last_name\": ", values, lengthof(values), "}"},
		{"emails", "a@x.org", "{\"emails\": [", mails, 1, "]}"},
		{"emails", "b@x.org", "{\"emails\": [", mails + 4, 1, "]}"},
		{"emails", "", "{\"emails\": [\"c@x.org\", ", mails, lengthof(mails), "]}"},
		{"tags", "t", "{\"tags\": [", tags, 1, "]}"},
		{"metadata", "k", "{\"metadata\": {\"k\": ", values, lengthof(values), "}}"}
	};
	ContactClaims claims;
	ContactError error;
	int64	   *records = palloc0(sizeof(int64) * (ninputs + 1));
	int			n = 0;
	int			which = next(in, lengthof(cells));
	const char *value = cells[which].values[next(in, cells[which].nvalues)];

	memset(d, 0, sizeof(*d));
	d->kind = next(in, 4);
	d->kind = d->kind == 0 ? MD_RESOLVE : d->kind == 1 && number > 0 ? MD_RELEASE : MD_OVERRIDE;
	d->target = d->kind == MD_RELEASE ? 1 + next(in, number) : 0;
	d->decided_at = 1 + next(in, 8);
	d->id = number + 1;
	for (int i = 0; i < ninputs; i++)
		if (next(in, 3) > 0)
			records[n++] = inputs[i].record_id;
	d->records = records;
	if (n == 0)
		return false;
	if (next(in, 4) > 0)
	{
		FUZZ_CHECK(contact_claims_from_jsonb(fuzz_jsonb(psprintf("%s%s%s", cells[which].before, value, cells[which].after)),
											 false, &claims, &error));
		d->items = claims.value.items;
		d->nitems = claims.value.nitems;
	}
	d->cleared = d->nitems == 0;
	if (!merge_decision_cell(policy, strview_of(cells[which].name), strview_of(cells[which].element), d))
		return false;
	if (next(in, 3) == 0)
		d->chosen_source = inputs[0].source;
	if (next(in, 2))
	{
		MergeInput	some[MAX_RECORDS];

		memcpy(some, inputs, sizeof(some));
		merge_seen(policy, some, ninputs, d, &d->seen, &d->nseen);
	}
	return true;
}

static void
resolve(const MergePolicy *policy, MergeInput *inputs, int ninputs, MergeDecision *decisions, int ndecisions,
		const Said *said, MergeResult *result)
{
	merge_resolve(policy, inputs, ninputs, decisions, ndecisions, true, result);
	if (!result->needs_history)
		return;
	for (int i = 0; i < ninputs; i++)
	{
		const Said *s = &said[inputs[i].record_id - 1];
		MergeObservation obs[MAX_OBSERVATIONS];

		memcpy(obs, s->obs, sizeof(s->obs));
		merge_history(policy, obs, s->nobs, s->sightings, inputs[i].source, &inputs[i].runs, &inputs[i].nruns);
	}
	merge_resolve(policy, inputs, ninputs, decisions, ndecisions, true, result);
	FUZZ_CHECK(!result->needs_history);
}

static void
check_resolve(Input *in, const MergePolicy *policy, const MergeInput *inputs, int ninputs,
			  const MergeDecision *decisions, int ndecisions, const Said *said)
{
	MergeInput	some[MAX_RECORDS];
	MergeInput	others[MAX_RECORDS];
	MergeDecision decided[MAX_DECISIONS];
	MergeResult result;
	MergeResult other;

	memcpy(some, inputs, sizeof(some));
	memcpy(decided, decisions, sizeof(decided));
	resolve(policy, some, ninputs, decided, ndecisions, said, &result);
	fuzz_check_value(&result.contact);
	for (int i = 0; i < result.contact.nitems; i++)
		FUZZ_CHECK(!(result.contact.items[i].flags & CI_TOMBSTONE));
	for (int i = 0; i < ORDERS; i++)
	{
		memcpy(others, inputs, sizeof(others));
		memcpy(decided, decisions, sizeof(decided));
		shuffle(in, others, ninputs, sizeof(others[0]));
		shuffle(in, decided, ndecisions, sizeof(decided[0]));
		resolve(policy, others, ninputs, decided, ndecisions, said, &other);
		FUZZ_CHECK(result.live == other.live);
		check_same_value(&result.contact, &other.contact, "contact");
		FUZZ_CHECK((result.naming_input < 0) == (other.naming_input < 0));
		FUZZ_CHECK(result.naming_input < 0 ||
				   some[result.naming_input].record_id == others[other.naming_input].record_id);
		FUZZ_CHECK(result.nconflicts == other.nconflicts && result.ncandidates == other.ncandidates);
		for (int c = 0; c < result.nconflicts; c++)
		{
			FUZZ_CHECK(strview_same(result.conflicts[c].name, other.conflicts[c].name));
			FUZZ_CHECK(result.conflicts[c].open == other.conflicts[c].open);
			FUZZ_CHECK(memcmp(result.conflicts[c].digest, other.conflicts[c].digest, MERGE_DIGEST_LEN) == 0);
		}
		for (int c = 0; c < result.ncandidates; c++)
		{
			const MergeCandidate *x = &result.candidates[c];
			const MergeCandidate *y = &other.candidates[c];

			FUZZ_CHECK(x->field == y->field && strview_same(x->key, y->key) && x->rank == y->rank);
			FUZZ_CHECK(x->verdict == y->verdict && x->changed_at == y->changed_at && x->as_of == y->as_of);
			FUZZ_CHECK(x->decision_id == y->decision_id && (x->input < 0) == (y->input < 0));
			FUZZ_CHECK(x->input < 0 || some[x->input].record_id == others[y->input].record_id);
		}
	}
}

/* ---- who is who ---- */

static void
read_person(Input *in, int i, IdentityRecord *r)
{
	static const char *const keys[] = {
		"email:a@x.org", "email:b@x.org", "email:info@x.org", "tel:+16502530000", "tel:+442079460958", "id:employee_id:7", "id:employee_id:8"
	};
	static const char *const names[] = {"lee\nann", "lee\na", "lee\nbob", "kim\nann", "lee\n"};

	memset(r, 0, sizeof(*r));
	r->record_id = i + 1;
	r->source = strview_of((const char *const[]) {"s0", "s1", "s2"}[next(in, 3)]);
	r->source_id = strview_of((const char *const[]) {"0", "1", "2", "3", "4", "5"}[i]);
	r->alive = next(in, 4) > 0;
	r->many_per_source = next(in, 2);
	r->names = palloc(sizeof(StrView) * 2);
	for (r->nnames = 0; r->nnames < 2 && next(in, 3) > 0; r->nnames++)
		r->names[r->nnames] = strview_of(PICK(in, names));
	r->keys = palloc0(sizeof(IdentityKey) * lengthof(keys));
	for (int k = 0; k < lengthof(keys); k++)
	{
		int			how = next(in, 6);

		if (how > 1)
			continue;
		r->keys[r->nkeys].key = strview_of(keys[k]);
		r->keys[r->nkeys].first_version = 1 + next(in, 6);
		r->keys[r->nkeys++].mobile = how == 1 && keys[k][0] == 't';
	}
}

/* The record that another's cluster is known by. */
static int64
cluster_of(const IdentityRecord *records, int n, int64 id)
{
	for (int i = 0; i < n; i++)
		if (records[i].record_id == id)
			return records[records[i].cluster].record_id;
	return -1;
}

static void
check_identity(Input *in)
{
	IdentityRecord records[6];
	IdentityRecord others[6];
	IdentityPolicy policy;
	IdentityRefused *refused;
	IdentityRefused *refused_then;
	int			nrefused;
	int			nrefused_then;
	int			n = 2 + next(in, 5);

	identity_policy_defaults(&policy);
	for (int i = 0; i < n; i++)
		read_person(in, i, &records[i]);
	memcpy(others, records, sizeof(others));
	identity_cluster(&policy, records, n, NULL, 0, &refused, &nrefused);
	for (int turn = 0; turn < ORDERS; turn++)
	{
		IdentityRecord now[6];

		memcpy(now, others, sizeof(now));
		shuffle(in, now, n, sizeof(now[0]));
		/* the order of a record's keys and names says nothing either */
		for (int i = 0; i < n; i++)
		{
			shuffle(in, now[i].keys, now[i].nkeys, sizeof(IdentityKey));
			shuffle(in, now[i].names, now[i].nnames, sizeof(StrView));
		}
		identity_cluster(&policy, now, n, NULL, 0, &refused_then, &nrefused_then);
		for (int i = 0; i < n; i++)
			for (int j = 0; j < i; j++)
				FUZZ_CHECK((cluster_of(records, n, i + 1) == cluster_of(records, n, j + 1)) ==
						   (cluster_of(now, n, i + 1) == cluster_of(now, n, j + 1)));
		FUZZ_CHECK(nrefused == nrefused_then);
		for (int i = 0; i < nrefused; i++)
		{
			FUZZ_CHECK(records[refused[i].a].record_id == now[refused_then[i].a].record_id);
			FUZZ_CHECK(records[refused[i].b].record_id == now[refused_then[i].b].record_id);
			FUZZ_CHECK(strview_same(refused[i].key, refused_then[i].key));
			FUZZ_CHECK(refused[i].reason == refused_then[i].reason && refused[i].score == refused_then[i].score);
		}
	}
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	static const char *const sources[] = {"s0", "s1", "s2", "s0"};
	static const char *const classes[] = {"c0", "c1", "c1", "c0"};
	static const char *const ids[] = {"r0", "r1", "r2", "r3"};
	Input		in = {data, data + size, hash_bytes(data, size)};
	Said		said[MAX_RECORDS] = {0};
	MergeInput	inputs[MAX_RECORDS] = {0};
	MergeDecision decisions[MAX_DECISIONS] = {0};
	int			ndecisions = 0;
	int			nrecords = 1 + next(&in, MAX_RECORDS);
	MergePolicy *policy;

	if (next(&in, 4) == 0)
	{
		check_identity(&in);
		fuzz_reset();
		return 0;
	}
	policy = read_policy(&in);
	for (int r = 0; r < nrecords; r++)
	{
		said[r].nobs = 1 + next(&in, MAX_OBSERVATIONS);
		for (int i = 0; i < said[r].nobs; i++)
			read_observation(&in, &said[r].obs[i]);
		said[r].sightings.seen_at = next(&in, 3) == 0 ? 1 + next(&in, 9) : MERGE_TIME_MIN;
		said[r].sightings.gone_at = next(&in, 4) == 0 ? 1 + next(&in, 9) : MERGE_TIME_MIN;
		inputs[r].record_id = r + 1;
		inputs[r].source = strview_of(sources[r]);
		inputs[r].source_class = strview_of(classes[r]);
		inputs[r].source_id = strview_of(ids[r]);
		check_fold(&in, &said[r], inputs[r].source, &inputs[r].record);
	}
	for (int i = next(&in, MAX_DECISIONS + 1); i > 0; i--)
		if (read_decision(&in, policy, inputs, nrecords, ndecisions, &decisions[ndecisions]))
			ndecisions++;
	check_resolve(&in, policy, inputs, nrecords, decisions, ndecisions, said);
	fuzz_reset();
	return 0;
}
