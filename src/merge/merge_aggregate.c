/*
 * merge_aggregate.c
 *		resolve() and the aggregate merge(): contacts as values, made into one.
 *
 * Each stamp of a contact names the source of a value and its times, so that a
 * contact comes apart into one claimant for each source in it; what has no stamp
 * is a claim of unknown time, of a source of its own.
 *
 * The state of the aggregate is a set of contacts and the policy that is to
 * resolve them: an expanded object while rows are added, and flat where it goes
 * to another process or server.  Contacts are put in the order of their bytes
 * before they are resolved; so the order of rows and the way in which they were
 * grouped decide nothing.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/expandeddatum.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "compat.h"
#include "merge/merge.h"

PG_FUNCTION_INFO_V1(merge_state_in);
PG_FUNCTION_INFO_V1(merge_state_out);
PG_FUNCTION_INFO_V1(merge_state_recv);
PG_FUNCTION_INFO_V1(merge_state_send);
PG_FUNCTION_INFO_V1(merge_transition);
PG_FUNCTION_INFO_V1(merge_combine);
PG_FUNCTION_INFO_V1(merge_final);
PG_FUNCTION_INFO_V1(merge_resolve_array);

extern Datum contact_in(PG_FUNCTION_ARGS);
extern Datum contact_out(PG_FUNCTION_ARGS);
extern Datum merge_policy_in(PG_FUNCTION_ARGS);

#define WIRE_VERSION		1
#define STATE_MAGIC			0x6d657267

typedef struct MergeState
{
	ExpandedObjectHeader hdr;
	int			magic;
	Jsonb	   *policy;
	int			ncontacts;
	int			max;
	Contact   **contacts;
	Size		size;			/* of the flat form */
} MergeState;

/* The flat form: the policy, then the contacts, each with its length and aligned. */
typedef struct FlatState
{
	int32		vl_len_;
	char		data[FLEXIBLE_ARRAY_MEMBER];
} FlatState;

/* ---- one contact of many ---- */

static int
contact_bytes_cmp(const void *x, const void *y)
{
	const Contact *a = *(Contact *const *) x;
	const Contact *b = *(Contact *const *) y;
	Size		na = VARSIZE_ANY_EXHDR(a);
	Size		nb = VARSIZE_ANY_EXHDR(b);
	int			r = memcmp(VARDATA_ANY(a), VARDATA_ANY(b), Min(na, nb));

	return r ? r : (na > nb) - (na < nb);
}

/* The claimant that a source is in the contact whose inputs begin at "from". */
static MergeInput *
claimant(MergeInput *inputs, int from, int *n, StrView source, int nitems)
{
	MergeInput *in;

	for (int i = from; i < *n; i++)
		if (strview_same(inputs[i].source, source))
			return &inputs[i];
	in = &inputs[(*n)++];
	memset(in, 0, sizeof(*in));
	in->source = source;
	merge_record_init(&in->record);
	in->record.alive = true;
	/* a stamp says itself what an estimate counts as */
	in->record.created = PG_INT64_MAX;
	in->record.state.items = palloc(sizeof(ContactItem) * nitems);
	in->record.state.stamps = palloc(sizeof(ContactStamp) * nitems);
	return in;
}

static const ContactStamp unstamped = {{NULL, 0}, MERGE_TIME_MIN, MERGE_TIME_MIN, CS_ESTIMATE};

static Contact *
resolve_contacts(Contact **contacts, int ncontacts, const Jsonb *stored)
{
	MergePolicy policy;
	MergeResult result;
	MergeInput *inputs;
	ContactValue *values = palloc(sizeof(ContactValue) * ncontacts);
	int			max = 0;
	int			n = 0;

	merge_policy_read(stored, &policy);
	qsort(contacts, ncontacts, sizeof(Contact *), contact_bytes_cmp);
	for (int i = 0; i < ncontacts; i++)
	{
		contact_deform(contacts[i], &values[i]);
		max += values[i].nstamps + 1;
	}
	inputs = palloc(sizeof(MergeInput) * max);
	for (int i = 0; i < ncontacts; i++)
	{
		const ContactValue *v = &values[i];
		int			from = n;

		CHECK_FOR_INTERRUPTS();
		for (int k = 0; k < v->nitems; k++)
		{
			const ContactStamp *stamp = v->items[k].stamp >= 0 ? &v->stamps[v->items[k].stamp] : &unstamped;
			MergeInput *in = claimant(inputs, from, &n, stamp->source, v->nitems);
			ContactValue *state = &in->record.state;

			state->items[state->nitems] = v->items[k];
			state->items[state->nitems++].stamp = state->nstamps;
			state->stamps[state->nstamps++] = *stamp;
			in->record.version = Max(in->record.version, stamp->as_of);
		}
	}
	merge_resolve(&policy, inputs, n, NULL, 0, false, &result);
	for (int i = 0; i < result.contact.nitems; i++)
	{
		const ContactStamp *stamp = &result.contact.stamps[result.contact.items[i].stamp];

		if (stamp->source.len == 0 && stamp->as_of == MERGE_TIME_MIN && stamp->changed_at == MERGE_TIME_MIN)
			result.contact.items[i].stamp = -1;
	}
	return contact_form(&result.contact);
}

/*
 * resolve(contacts contact[], policy merge_policy) -> contact
 */
Datum
merge_resolve_array(PG_FUNCTION_ARGS)
{
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(0);
	Contact   **contacts;
	Datum	   *values;
	bool	   *nulls;
	int			n;
	int			ncontacts = 0;

	deconstruct_array(array, ARR_ELEMTYPE(array), -1, false, TYPALIGN_INT, &values, &nulls, &n);
	contacts = palloc(sizeof(Contact *) * Max(n, 1));
	for (int i = 0; i < n; i++)
		if (!nulls[i])
			contacts[ncontacts++] = DatumGetContactP(values[i]);
	if (ncontacts == 0)
		PG_RETURN_NULL();
	PG_RETURN_CONTACT_P(resolve_contacts(contacts, ncontacts, DatumGetMergePolicyP(PG_GETARG_DATUM(1))));
}

/* ---- the state ---- */

static Size
state_flat_size(ExpandedObjectHeader *eohptr)
{
	MergeState *state = (MergeState *) eohptr;

	if (!AllocSizeIsValid(state->size))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many contacts to be merged into one"),
				 errhint("Is the query grouped by what the contacts have in common?")));
	return state->size;
}

static char *
put_aligned(char *p, const void *value)
{
	memcpy(p, value, VARSIZE(value));
	/* no byte of what is stored or hashed is left to chance */
	memset(p + VARSIZE(value), 0, INTALIGN(VARSIZE(value)) - VARSIZE(value));
	return p + INTALIGN(VARSIZE(value));
}

static void
state_flatten_into(ExpandedObjectHeader *eohptr, void *result, Size allocated_size)
{
	MergeState *state = (MergeState *) eohptr;
	FlatState  *flat = result;
	char	   *p = flat->data;

	SET_VARSIZE(flat, allocated_size);
	p = put_aligned(p, state->policy);
	for (int i = 0; i < state->ncontacts; i++)
		p = put_aligned(p, state->contacts[i]);
	Assert(p == (char *) result + allocated_size);
}

static const ExpandedObjectMethods state_methods = {state_flat_size, state_flatten_into};

/* A copy without compression, and with a header of four bytes, in the current context. */
static void *
plain_copy(Datum datum)
{
	struct varlena *v = PG_DETOAST_DATUM(datum);
	void	   *copy;

	if ((Pointer) v != DatumGetPointer(datum))
		return v;
	copy = palloc(VARSIZE(v));
	memcpy(copy, v, VARSIZE(v));
	return copy;
}

static MergeState *
state_new(MemoryContext parent, Datum policy)
{
	MemoryContext context = AllocSetContextCreate(parent, "merge state", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	MergeState *state = palloc0(sizeof(MergeState));

	EOH_init_header(&state->hdr, &state_methods, context);
	state->magic = STATE_MAGIC;
	state->policy = plain_copy(policy);
	state->max = 4;
	state->contacts = palloc(sizeof(Contact *) * state->max);
	state->size = offsetof(FlatState, data) + INTALIGN(VARSIZE(state->policy));
	MemoryContextSwitchTo(old);
	return state;
}

static void
state_add(MergeState *state, Datum contact)
{
	MemoryContext old = MemoryContextSwitchTo(state->hdr.eoh_context);
	Contact    *c = plain_copy(contact);

	if (state->ncontacts == state->max)
	{
		state->max *= 2;
		state->contacts = repalloc_huge(state->contacts, sizeof(Contact *) * state->max);
	}
	state->contacts[state->ncontacts++] = c;
	state->size += INTALIGN(VARSIZE(c));
	MemoryContextSwitchTo(old);
}

static void
require_same_policy(const MergeState *state, const Jsonb *policy)
{
	if (VARSIZE(policy) != VARSIZE(state->policy) || memcmp(policy, state->policy, VARSIZE(policy)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the contacts of a group must be merged by one policy"),
				 errhint("Group by the policy, or give the same for all rows.")));
}

/* A state to read: as it is if it is expanded, else in the current context. */
static MergeState *
state_of(Datum datum, MemoryContext parent)
{
	FlatState  *flat;
	MergeState *state;
	char	   *p;

	if (VARATT_IS_EXTERNAL_EXPANDED(DatumGetPointer(datum)))
	{
		state = (MergeState *) DatumGetEOHP(datum);
		Assert(state->magic == STATE_MAGIC);
		return state;
	}
	flat = (FlatState *) PG_DETOAST_DATUM(datum);
	p = flat->data;
	state = state_new(parent, PointerGetDatum(p));
	p += INTALIGN(VARSIZE(p));
	while (p < (char *) flat + VARSIZE(flat))
	{
		state_add(state, PointerGetDatum(p));
		p += INTALIGN(VARSIZE(p));
	}
	return state;
}

/* One to add to, which is this one only if it is the caller's own. */
static MergeState *
writable_state(Datum datum, MemoryContext parent)
{
	const MergeState *from = state_of(datum, parent);
	MergeState *state;

	if (!VARATT_IS_EXTERNAL_EXPANDED(DatumGetPointer(datum)) ||
		VARATT_IS_EXTERNAL_EXPANDED_RW(DatumGetPointer(datum)))
		return (MergeState *) from;
	state = state_new(parent, PointerGetDatum(from->policy));
	for (int i = 0; i < from->ncontacts; i++)
		state_add(state, PointerGetDatum(from->contacts[i]));
	return state;
}

static MemoryContext
state_context(FunctionCallInfo fcinfo)
{
	MemoryContext context;

	return AggCheckCallContext(fcinfo, &context) ? context : CurrentMemoryContext;
}

/*
 * merge_transition(merge_state, contact, merge_policy) -> merge_state
 */
Datum
merge_transition(PG_FUNCTION_ARGS)
{
	MemoryContext parent = state_context(fcinfo);
	MergeState *state;

	/* no contact, nothing to merge */
	if (PG_ARGISNULL(1))
	{
		if (PG_ARGISNULL(0))
			PG_RETURN_NULL();
		PG_RETURN_DATUM(PG_GETARG_DATUM(0));
	}
	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the policy must not be null"),
				 errhint("The default rules are '{}'.")));
	if (PG_ARGISNULL(0))
		state = state_new(parent, PG_GETARG_DATUM(2));
	else
	{
		state = writable_state(PG_GETARG_DATUM(0), parent);
		require_same_policy(state, DatumGetMergePolicyP(PG_GETARG_DATUM(2)));
	}
	state_add(state, PG_GETARG_DATUM(1));
	PG_RETURN_DATUM(EOHPGetRWDatum(&state->hdr));
}

/*
 * merge_combine(merge_state, merge_state) -> merge_state
 */
Datum
merge_combine(PG_FUNCTION_ARGS)
{
	MemoryContext parent = state_context(fcinfo);
	const MergeState *other;
	MergeState *state;

	if (PG_ARGISNULL(1))
	{
		if (PG_ARGISNULL(0))
			PG_RETURN_NULL();
		PG_RETURN_DATUM(PG_GETARG_DATUM(0));
	}
	other = state_of(PG_GETARG_DATUM(1), CurrentMemoryContext);
	if (PG_ARGISNULL(0))
		state = state_new(parent, PointerGetDatum(other->policy));
	else
	{
		state = writable_state(PG_GETARG_DATUM(0), parent);
		require_same_policy(state, other->policy);
	}
	for (int i = 0; i < other->ncontacts; i++)
		state_add(state, PointerGetDatum(other->contacts[i]));
	PG_RETURN_DATUM(EOHPGetRWDatum(&state->hdr));
}

/*
 * merge_final(merge_state) -> contact
 */
Datum
merge_final(PG_FUNCTION_ARGS)
{
	MergeState *state = state_of(PG_GETARG_DATUM(0), CurrentMemoryContext);
	Contact   **contacts = palloc_extended(sizeof(Contact *) * state->ncontacts, MCXT_ALLOC_HUGE);

	memcpy(contacts, state->contacts, sizeof(Contact *) * state->ncontacts);
	PG_RETURN_CONTACT_P(resolve_contacts(contacts, state->ncontacts, state->policy));
}

/* ---- input and output ---- */

/*
 * The text form: the policy on the first line and a contact on each line after
 * it, in their own text forms, in which a line break is always escaped.
 */
static void
state_text(StringInfo buf, const MergeState *state)
{
	appendStringInfoString(buf, DatumGetCString(DirectFunctionCall1(jsonb_out, PointerGetDatum(state->policy))));
	for (int i = 0; i < state->ncontacts; i++)
	{
		appendStringInfoChar(buf, '\n');
		appendStringInfoString(buf, DatumGetCString(DirectFunctionCall1(contact_out, PointerGetDatum(state->contacts[i]))));
	}
}

/* NULL on a soft error. */
static MergeState *
state_of_text(char *text, struct Node *escontext)
{
	char	   *line = text;
	char	   *end = strchr(line, '\n');
	MergeState *state;
	Datum		value;

	if (end)
		*end = '\0';
	if (!direct_input(merge_policy_in, line, escontext, &value))
		return NULL;
	state = state_new(CurrentMemoryContext, value);
	if (end == NULL)
		ereturn(escontext, NULL,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("invalid merge state: it has no contacts"),
				 errdetail("The first line is the policy, each line after it a contact.")));
	while (end)
	{
		line = end + 1;
		end = strchr(line, '\n');
		if (end)
			*end = '\0';
		if (!direct_input(contact_in, line, escontext, &value))
			return NULL;
		state_add(state, value);
	}
	return state;
}

/*
 * merge_state_in(cstring) -> merge_state
 */
Datum
merge_state_in(PG_FUNCTION_ARGS)
{
	MergeState *state = state_of_text(pstrdup(PG_GETARG_CSTRING(0)), fcinfo->context);

	if (state == NULL)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(EOHPGetRWDatum(&state->hdr));
}

/*
 * merge_state_out(merge_state) -> cstring
 */
Datum
merge_state_out(PG_FUNCTION_ARGS)
{
	StringInfoData buf;

	initStringInfo(&buf);
	state_text(&buf, state_of(PG_GETARG_DATUM(0), CurrentMemoryContext));
	PG_RETURN_CSTRING(buf.data);
}

/*
 * merge_state_recv(internal) -> merge_state
 */
Datum
merge_state_recv(PG_FUNCTION_ARGS)
{
	StringInfo	buf = (StringInfo) PG_GETARG_POINTER(0);
	int			version = pq_getmsgint(buf, 1);
	int			len;

	if (version != WIRE_VERSION)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
				 errmsg("unsupported merge state version number %d", version)));
	PG_RETURN_DATUM(EOHPGetRWDatum(&state_of_text(pq_getmsgtext(buf, buf->len - buf->cursor, &len), NULL)->hdr));
}

/*
 * merge_state_send(merge_state) -> bytea
 */
Datum
merge_state_send(PG_FUNCTION_ARGS)
{
	StringInfoData text;
	StringInfoData buf;

	initStringInfo(&text);
	state_text(&text, state_of(PG_GETARG_DATUM(0), CurrentMemoryContext));
	pq_begintypsend(&buf);
	pq_sendint8(&buf, WIRE_VERSION);
	pq_sendtext(&buf, text.data, text.len);
	PG_RETURN_BYTEA_P(pq_endtypsend(&buf));
}
