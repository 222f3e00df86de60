/*
 * contact_layout.c
 *		The stored form of a contact.
 *
 * After the varlena header, all numbers in host order and read by memcpy, so
 * that a short header does no harm; "narrow" is a value of at most 255 items,
 * 64 kB of them and 254 stamps, as nearly all are:
 *
 *	u32							version : 8, field map (a bit per field that has
 *								items) : 18, LAYOUT_* flags : 6
 *	u8 nitems					u16, if not narrow
 *	u8 start[]					index of the first item of each list field in
 *								the map; u16, if not narrow
 *	entry[nitems]				u16 end of its bytes in the body; u32, if not narrow
 *								u8 parts : 4, flags : 4
 *								u8 stamp + 1, if any item has one; u16, if not narrow
 *	body						bytes of the items, in order
 *	varint nstamps, stamps		if any item has one; sorted, equal ones are
 *								stored once
 *
 * A scalar field has one item, so its index is its rank in the map.  Its bytes
 * are its value as a text with a short header, where it is short enough for
 * one: the accessors return it in place.  Any other item's bytes are the parts
 * that its "parts" bits name, each with a length before it, and then its value,
 * which needs none; a type may be the number of a usual one instead.  A key
 * that equals the value is not stored twice.
 *
 * A stamp is a byte of flags, whose highest bit says that its source's name
 * follows (else it is that of the stamp before it), and two times: as_of less
 * the as_of before it, changed_at less as_of, each a varint in whole seconds,
 * milliseconds or microseconds.
 *
 * Items stand in canonical order, hot fields first and provenance last, so
 * equal values are equal bytes and a slice serves the accessors: they use a
 * ContactReader, which finds a field without looking at any other.
 */
#include "postgres.h"

#include "port/pg_bitutils.h"

#include "compat.h"
#include "contact/contact.h"

#define LAYOUT_VERSION		2

/* flags of the head */
#define LAYOUT_WIDE			0x01	/* not narrow */
#define LAYOUT_STAMPED		0x02

#define HEAD_VERSION(h_)	((h_) & 0xff)
#define HEAD_MAP(h_)		((h_) >> 8 & (CF_BIT(CF_COUNT) - 1))
#define HEAD_FLAGS(h_)		((h_) >> 26)

#define LISTS				(~(CF_BIT(CF_EMAILS) - 1))	/* fields, as bits */

/* what an item's bytes hold before its value: four bits of an entry */
#define PART_KEY			0x01	/* else the key equals the value */
#define PART_NOKEY			0x02	/* no key at all */
#define PART_TYPE			0x04
#define PART_EXTENSION		0x08
#define PART_HEADER			0x08	/* of a scalar: the short header of a text */

/* the parts of an address need no bit */
#define HAS_ADDRESS(field_, flags_) \
	((field_) == CF_ADDRESSES && !((flags_) & CI_TOMBSTONE))

/*
 * Types that most elements have; their numbers are stored, so this list belongs
 * to the version of the format.
 */
static const StrView usual_types[] = {
	{"work", 4}, {"home", 4}, {"mobile", 6}, {"cell", 4}, {"fax", 3}, {"other", 5}, {"main", 4},
	{"pager", 5}, {"custom", 6}, {"school", 6}, {"private", 7}, {"internet", 8}, {"voice", 5},
	{"iphone", 6}, {"homepage", 8}, {"profile", 7}
};

static inline int
count_bits(uint32 n)
{
	n = n - (n >> 1 & 0x55555555);
	n = (n & 0x33333333) + (n >> 2 & 0x33333333);
	n = (n + (n >> 4)) & 0x0f0f0f0f;
	return (n * 0x01010101) >> 24;
}

/* The sizes that differ between narrow values and others. */
static inline int
count_size(int flags)			/* of nitems, and of each start */
{
	return flags & LAYOUT_WIDE ? sizeof(uint16) : 1;
}

static inline int
end_size(int flags)				/* of an entry's end */
{
	return flags & LAYOUT_WIDE ? sizeof(uint32) : sizeof(uint16);
}

static inline int
entry_size(int flags)
{
	return end_size(flags) + 1 + (flags & LAYOUT_STAMPED ? count_size(flags) : 0);
}

/* Counts, starts and stamps of entries: all are small. */
static char *
put_count(char *p, int flags, int n)
{
	uint16		wide = n;

	if (flags & LAYOUT_WIDE)
		memcpy(p, &wide, sizeof(wide));
	else
		*p = (char) n;
	return p + count_size(flags);
}

static inline int
get_count(const char *p, int flags)
{
	uint16		wide;

	if (!(flags & LAYOUT_WIDE))
		return (uint8) *p;
	memcpy(&wide, p, sizeof(wide));
	return wide;
}

static char *
put_entry(char *p, int flags, uint32 end, uint8 parts, uint8 item_flags, int stamp)
{
	uint16		narrow = end;

	if (flags & LAYOUT_WIDE)
		memcpy(p, &end, sizeof(end));
	else
		memcpy(p, &narrow, sizeof(narrow));
	p += end_size(flags);
	*p++ = (char) (parts << 4 | item_flags);
	return flags & LAYOUT_STAMPED ? put_count(p, flags, stamp) : p;
}

static inline uint32
get_end(const char *entry, int flags)
{
	uint32		end;
	uint16		narrow;

	if (flags & LAYOUT_WIDE)
	{
		memcpy(&end, entry, sizeof(end));
		return end;
	}
	memcpy(&narrow, entry, sizeof(narrow));
	return narrow;
}

static inline int
varint_size(uint32 n)
{
	return n < 0x80 ? 1 : n < 0x4000 ? 2 : n < 0x200000 ? 3 : 4;
}

static char *
put_varint(char *p, uint32 n)
{
	while (n >= 0x80)
	{
		*p++ = (char) (n | 0x80);
		n >>= 7;
	}
	*p++ = (char) n;
	return p;
}

static inline const char *
get_varint(const char *p, uint32 *n)
{
	int			shift = 0;

	*n = 0;
	do
	{
		*n |= (uint32) (*p & 0x7f) << shift;
		shift += 7;
	} while (*p++ & 0x80);
	return p;
}

static char *
put_bytes(char *p, StrView s)
{
	if (s.len > 0)
		memcpy(p, s.ptr, s.len);
	return p + s.len;
}

static char *
put_part(char *p, StrView s)
{
	return put_bytes(put_varint(p, s.len), s);
}

static inline const char *
get_part(const char *p, StrView *s)
{
	uint32		n;

	p = get_varint(p, &n);
	s->ptr = n > 0 ? p : NULL;
	s->len = n;
	return p + n;
}

static inline int
part_size(StrView s)
{
	return varint_size(s.len) + s.len;
}

/* A type's number among the usual ones, or -1. */
static int
usual_type(StrView type)
{
	for (int i = 0; i < lengthof(usual_types); i++)
		if (strview_same(type, usual_types[i]))
			return i;
	return -1;
}

/* A type is a usual one's number, or its length and as many above these. */
static int
type_size(StrView type)
{
	return usual_type(type) >= 0 ? 1 : varint_size(type.len + lengthof(usual_types)) + type.len;
}

static char *
put_type(char *p, StrView type)
{
	int			n = usual_type(type);

	if (n >= 0)
		return put_varint(p, n);
	return put_bytes(put_varint(p, type.len + lengthof(usual_types)), type);
}

static inline const char *
get_type(const char *p, StrView *type)
{
	uint32		n;

	p = get_varint(p, &n);
	if (n < lengthof(usual_types))
	{
		*type = usual_types[n];
		return p;
	}
	type->ptr = p;
	type->len = n - lengthof(usual_types);
	return p + type->len;
}

static uint8
item_parts(const ContactItem *item)
{
	uint8		parts = 0;

	if (!CF_IS_LIST(item->field))
		return PART_NOKEY |
			(item->value.len > 0 && item->value.len <= VARATT_SHORT_MAX - VARHDRSZ_SHORT ? PART_HEADER : 0);
	if (item->key.len == 0)
		parts |= PART_NOKEY;
	else if (item->key.len != item->value.len ||
			 (item->key.ptr != item->value.ptr &&
			  memcmp(item->key.ptr, item->value.ptr, item->key.len) != 0))
		parts |= PART_KEY;
	if (item->type.len > 0)
		parts |= PART_TYPE;
	if (item->extension.len > 0)
		parts |= PART_EXTENSION;
	return parts;
}

static Size
item_size(const ContactItem *item, uint8 parts)
{
	Size		size = item->value.len;

	if (!CF_IS_LIST(item->field))
		return size + (parts & PART_HEADER ? VARHDRSZ_SHORT : 0);
	if (parts & PART_KEY)
		size += part_size(item->key);
	if (parts & PART_TYPE)
		size += type_size(item->type);
	if (parts & PART_EXTENSION)
		size += part_size(item->extension);
	if (HAS_ADDRESS(item->field, item->flags))
	{
		for (int i = 0; i < CA_COUNT; i++)
			size += part_size(item->part[i]);
	}
	return size;
}

/* Size of the body, and with provenance, which repeats keys and sources in text. */
static void
measure(const ContactValue *v, Size *body, Size *with_provenance)
{
	Size		stamped = 0;

	*body = 0;
	for (int i = 0; i < v->nitems; i++)
	{
		const ContactItem *item = &v->items[i];

		*body += item_size(item, item_parts(item));
		if (item->stamp >= 0)
			stamped += item->key.len + v->stamps[item->stamp].source.len;
	}
	*with_provenance = *body + stamped;
}

static bool
fits(const ContactValue *v, Size size, ContactError *error)
{
	if (v->nitems <= CONTACT_MAX_ITEMS && size <= CONTACT_MAX_SIZE)
		return true;

	memset(error, 0, sizeof(*error));
	error->limit = true;
	strcpy(error->path, "$");
	error->message = v->nitems > CONTACT_MAX_ITEMS ?
		"more than " CppAsString2(CONTACT_MAX_ITEMS) " values, removed ones included" :
		"more than 16 MB, provenance included";
	return false;
}

bool
contact_fits(const ContactValue *v, ContactError *error)
{
	Size		body;
	Size		size;

	measure(v, &body, &size);
	return fits(v, size, error);
}

static int
stamp_cmp(const void *a, const void *b)
{
	const ContactStamp *x = *(const ContactStamp *const *) a;
	const ContactStamp *y = *(const ContactStamp *const *) b;
	int			r = strview_cmp(x->source, y->source);

	if (r != 0)
		return r;
	if (x->as_of != y->as_of)
		return x->as_of < y->as_of ? -1 : 1;
	if (x->changed_at != y->changed_at)
		return x->changed_at < y->changed_at ? -1 : 1;
	return (int) x->flags - (int) y->flags;
}

/* The stamps that a value's items have, each once, and their sources. */
typedef struct StampTable
{
	const ContactStamp **stamps;	/* sorted, so by source first */
	int			nstamps;
	uint16	   *stamp_of;		/* by index in the value: index here + 1 */
	Size		names;			/* length of their sources together */
} StampTable;

static void
collect_stamps(const ContactValue *v, StampTable *t)
{
	int			n = 0;

	memset(t, 0, sizeof(*t));
	if (v->nstamps == 0)
		return;
	t->stamps = palloc(sizeof(ContactStamp *) * v->nstamps);
	t->stamp_of = palloc0(sizeof(uint16) * v->nstamps);
	for (int i = 0; i < v->nitems; i++)
	{
		int			s = v->items[i].stamp;

		if (s < 0 || t->stamp_of[s])
			continue;
		t->stamp_of[s] = 1;
		t->stamps[n++] = &v->stamps[s];
	}
	if (n > 1)
		qsort(t->stamps, n, sizeof(ContactStamp *), stamp_cmp);

	for (int i = 0; i < n; i++)
	{
		const ContactStamp *stamp = t->stamps[i];

		if (t->nstamps == 0 || stamp_cmp(&t->stamps[t->nstamps - 1], &stamp) != 0)
		{
			t->stamps[t->nstamps++] = stamp;
			t->names += stamp->source.len;
		}
		t->stamp_of[stamp - v->stamps] = t->nstamps;
	}
}

/* A difference of times: its unit in two bits, then a varint of both signs. */
#define TIME_MICROSECONDS	0
#define TIME_MILLISECONDS	1
#define TIME_SECONDS		2
#define TIME_INFINITE		3	/* not a difference: 0 is -infinity, else infinity */

#define TIME_MAX_SIZE		10

static char *
put_time_code(char *p, int unit, uint64 n)
{
	uint8		byte = unit | (n & 0x1f) << 2;

	n >>= 5;
	for (; n > 0; n >>= 7)
	{
		*p++ = (char) (byte | 0x80);
		byte = n & 0x7f;
	}
	*p++ = (char) byte;
	return p;
}

/* t, as its difference from *base, which becomes t unless that is infinite. */
static char *
put_time(char *p, int64 t, int64 *base)
{
	int64		n;
	int			unit = TIME_MICROSECONDS;

	if (t == PG_INT64_MIN || t == PG_INT64_MAX)
		return put_time_code(p, TIME_INFINITE, t == PG_INT64_MAX ? 1 : 0);
	/* the extremes are farther apart than int64 says; it wraps, both ways */
	n = (int64) ((uint64) t - (uint64) *base);
	*base = t;
	if (n % 1000000 == 0)
	{
		unit = TIME_SECONDS;
		n /= 1000000;
	}
	else if (n % 1000 == 0)
	{
		unit = TIME_MILLISECONDS;
		n /= 1000;
	}
	return put_time_code(p, unit, n < 0 ? ~((uint64) n << 1) : (uint64) n << 1);
}

static const char *
get_time(const char *p, int64 *t, int64 *base)
{
	static const int64 units[] = {1, 1000, 1000000};
	uint8		byte = *p++;
	int			unit = byte & 0x03;
	uint64		n = byte >> 2 & 0x1f;
	int			shift = 5;

	while (byte & 0x80)
	{
		byte = *p++;
		n |= (uint64) (byte & 0x7f) << shift;
		shift += 7;
	}
	if (unit == TIME_INFINITE)
		*t = n ? PG_INT64_MAX : PG_INT64_MIN;
	else
	{
		n = n & 1 ? ~(n >> 1) : n >> 1;
		*t = *base = (int64) ((uint64) *base + n * (uint64) units[unit]);
	}
	return p;
}

#define STAMP_NEW_SOURCE	0x80
#define STAMP_MAX_SIZE		(1 + 4 + 2 * TIME_MAX_SIZE) /* without the name */

/* The stamps as stored: palloc'd. */
static char *
pack_stamps(const StampTable *t, Size *size)
{
	char	   *packed = palloc(4 + t->nstamps * (Size) STAMP_MAX_SIZE + t->names);
	char	   *p = put_varint(packed, t->nstamps);
	int64		as_of = 0;

	for (int i = 0; i < t->nstamps; i++)
	{
		const ContactStamp *stamp = t->stamps[i];
		bool		new_source = i == 0 || !strview_same(t->stamps[i - 1]->source, stamp->source);
		int64		base;

		Assert(!(stamp->flags & STAMP_NEW_SOURCE));
		*p++ = (char) (stamp->flags | (new_source ? STAMP_NEW_SOURCE : 0));
		if (new_source)
			p = put_part(p, stamp->source);
		p = put_time(p, stamp->as_of, &as_of);
		base = as_of;
		p = put_time(p, stamp->changed_at, &base);
	}
	*size = p - packed;
	return packed;
}

static void
unpack_stamps(const char *p, ContactValue *v)
{
	uint32		n;
	int64		as_of = 0;

	p = get_varint(p, &n);
	v->nstamps = n;
	v->stamps = palloc0(sizeof(ContactStamp) * Max(n, 1));
	for (int i = 0; i < v->nstamps; i++)
	{
		ContactStamp *stamp = &v->stamps[i];
		uint8		flags = *p++;
		int64		base;

		stamp->flags = flags & ~STAMP_NEW_SOURCE;
		if (flags & STAMP_NEW_SOURCE)
			p = get_part(p, &stamp->source);
		else
			stamp->source = stamp[-1].source;
		p = get_time(p, &stamp->as_of, &as_of);
		base = as_of;
		p = get_time(p, &stamp->changed_at, &base);
	}
}

/* An item's bytes, as its parts say. */
static char *
put_item(char *p, const ContactItem *item, uint8 parts)
{
	if (!CF_IS_LIST(item->field))
	{
		if (parts & PART_HEADER)
		{
			SET_VARSIZE_SHORT(p, VARHDRSZ_SHORT + item->value.len);
			p += VARHDRSZ_SHORT;
		}
		return put_bytes(p, item->value);
	}
	if (parts & PART_KEY)
		p = put_part(p, item->key);
	if (parts & PART_TYPE)
		p = put_type(p, item->type);
	if (parts & PART_EXTENSION)
		p = put_part(p, item->extension);
	if (HAS_ADDRESS(item->field, item->flags))
	{
		for (int i = 0; i < CA_COUNT; i++)
			p = put_part(p, item->part[i]);
	}
	return put_bytes(p, item->value);
}

Contact *
contact_form(const ContactValue *v)
{
	StampTable	t;
	ContactError error;
	char	   *stamps = NULL;
	Size		stamps_size = 0;
	Size		body;
	Size		size;
	uint32		map = 0;
	uint32		head;
	int			flags = 0;
	int			nlists;
	Contact    *c;
	char	   *p;
	char	   *bytes;
	char	   *from;

	measure(v, &body, &size);
	if (!fits(v, size, &error))
		contact_error_report(&error, NULL);
	collect_stamps(v, &t);
	if (t.nstamps > 0)
	{
		flags |= LAYOUT_STAMPED;
		stamps = pack_stamps(&t, &stamps_size);
	}
	if (v->nitems > PG_UINT8_MAX || body > PG_UINT16_MAX || t.nstamps >= PG_UINT8_MAX)
		flags |= LAYOUT_WIDE;
	for (int i = 0; i < v->nitems; i++)
		map |= CF_BIT(v->items[i].field);
	nlists = count_bits(map & LISTS);

	size = VARHDRSZ + sizeof(head) + (1 + nlists) * count_size(flags) +
		v->nitems * entry_size(flags) + body + stamps_size;
	c = palloc(size);
	SET_VARSIZE(c, size);
	p = c->data;
	head = LAYOUT_VERSION | map << 8 | (uint32) flags << 26;
	memcpy(p, &head, sizeof(head));
	p = put_count(p + sizeof(head), flags, v->nitems);
	for (int i = 0; i < v->nitems; i++)
	{
		bool		first = i == 0 || v->items[i - 1].field != v->items[i].field;

		Assert(first || CF_IS_LIST(v->items[i].field));
		if (first && CF_IS_LIST(v->items[i].field))
			p = put_count(p, flags, i);
	}

	from = bytes = p + v->nitems * entry_size(flags);
	for (int i = 0; i < v->nitems; i++)
	{
		const ContactItem *item = &v->items[i];
		uint8		parts = item_parts(item);

		bytes = put_item(bytes, item, parts);
		p = put_entry(p, flags, bytes - from, parts, item->flags,
					  item->stamp < 0 ? 0 : t.stamp_of[item->stamp]);
	}
	Assert(bytes == from + body);
	if (stamps)
		memcpy(bytes, stamps, stamps_size);
	if (v->nstamps > 0)
	{
		pfree(t.stamps);
		pfree(t.stamp_of);
	}
	if (stamps)
		pfree(stamps);
	return c;
}

static inline void
check_version(int version)
{
	if (version != LAYOUT_VERSION)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("contact has format version %d, which this release does not know",
						version),
				 errhint("It was written by another release of contactsync.")));
}

/*
 * Read the item of an entry, whose bytes begin at "begin" of the body, into
 * zeroed memory.  The result is where they end.
 */
static inline uint32
read_item(const char *entry, int flags, const char *body, uint32 begin,
		  ContactField field, ContactItem *item)
{
	const char *from = body + begin;
	uint32		end = get_end(entry, flags);
	uint8		parts;

	entry += end_size(flags);
	parts = (uint8) *entry >> 4;
	item->field = field;
	item->flags = *entry & 0x0f;
	item->stamp = flags & LAYOUT_STAMPED ? get_count(entry + 1, flags) - 1 : -1;
	if (!CF_IS_LIST(field))
		from += parts & PART_HEADER ? VARHDRSZ_SHORT : 0;
	else
	{
		if (parts & PART_KEY)
			from = get_part(from, &item->key);
		if (parts & PART_TYPE)
			from = get_type(from, &item->type);
		if (parts & PART_EXTENSION)
			from = get_part(from, &item->extension);
		if (HAS_ADDRESS(field, item->flags))
		{
			for (int j = 0; j < CA_COUNT; j++)
				from = get_part(from, &item->part[j]);
		}
	}
	item->value.len = body + end - from;
	item->value.ptr = item->value.len > 0 ? from : NULL;
	if (!(parts & (PART_KEY | PART_NOKEY)))
		item->key = item->value;
	return end;
}

/*
 * Note in the reader where things are; "have" bytes of the value are there.
 * The result is how many it takes to read the items of the given fields (or
 * only to know of them): if that is more, the caller comes back with more.
 */
#define WHOLE			PG_UINT32_MAX	/* all of it is there */

/* Where an item's bytes end in the body. */
static inline uint32
item_end(const ContactReader *r, int i)
{
	return get_end(r->entries + i * entry_size(r->flags), r->flags);
}

static inline Size
locate(ContactReader *r, const char *data, Size have, uint32 fields, bool bytes)
{
	uint32		head;
	uint32		wanted;
	int			last;

	memcpy(&head, data, sizeof(head));
	check_version(HEAD_VERSION(head));
	r->map = HEAD_MAP(head);
	r->flags = HEAD_FLAGS(head);
	r->nitems = get_count(data + sizeof(head), r->flags);
	r->starts = data + sizeof(head) + count_size(r->flags);
	r->entries = r->starts + count_bits(r->map & LISTS) * count_size(r->flags);
	r->body = r->entries + r->nitems * entry_size(r->flags);
	if (have == WHOLE)
		return 0;
	wanted = r->map & fields;
	if (!bytes || wanted == 0 || r->body - data > have)
		return r->body - data;
	(void) contact_read_field(r, pg_leftmost_one_pos32(wanted), &last);
	return r->body - data + item_end(r, last - 1);
}

void
contact_deform(const Contact *c, ContactValue *v)
{
	ContactReader r;
	const char *entry;
	uint32		begin = 0;
	int			i = 0;

	(void) locate(&r, c->data, WHOLE, 0, true);
	v->nitems = r.nitems;
	v->nstamps = 0;
	v->items = palloc0(sizeof(ContactItem) * Max(r.nitems, 1));
	entry = r.entries;
	for (ContactField field = 0; field < CF_COUNT; field++)
	{
		int			end;

		if (!(r.map & CF_BIT(field)))
			continue;
		(void) contact_read_field(&r, field, &end);
		for (; i < end; i++, entry += entry_size(r.flags))
			begin = read_item(entry, r.flags, r.body, begin, field, &v->items[i]);
	}
	if (r.flags & LAYOUT_STAMPED)
		unpack_stamps(r.body + begin, v);
	else
		v->stamps = palloc0(sizeof(ContactStamp));
}

/*
 * Bytes of a toasted value that are fetched at first: entries and hot
 * fields of most contacts, in one chunk of the toast table.
 */
#define READ_SLICE		1536

void
contact_read(ContactReader *r, Datum datum, uint32 fields, bool bytes)
{
	struct varlena *stored = (struct varlena *) DatumGetPointer(datum);
	Size		have = READ_SLICE;

	if (!VARATT_IS_COMPRESSED(stored) && !VARATT_IS_EXTERNAL(stored))
	{
		r->copy = NULL;
		(void) locate(r, VARDATA_ANY(stored), WHOLE, fields, bytes);
		return;
	}
	for (;;)
	{
		Size		needed;

		r->copy = PG_DETOAST_DATUM_SLICE(datum, 0, have);
		needed = locate(r, VARDATA_ANY(r->copy), VARSIZE_ANY_EXHDR(r->copy), fields, bytes);
		if (needed <= VARSIZE_ANY_EXHDR(r->copy))
			return;
		/* a corrupt value must not send us round for ever */
		if (VARSIZE_ANY_EXHDR(r->copy) < have)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("contact is shorter than it says")));
		pfree(r->copy);
		have = needed;
	}
}

int
contact_read_field(const ContactReader *r, ContactField field, int *end)
{
	uint32		below = CF_BIT(field) - 1;
	const char *start;

	if (!(r->map & CF_BIT(field)))
		return *end = 0;
	if (!CF_IS_LIST(field))
	{
		int			i = count_bits(r->map & below);

		*end = i + 1;
		return i;
	}
	start = r->starts + count_bits(r->map & below & LISTS) * count_size(r->flags);
	*end = r->map & ~(below | CF_BIT(field)) ?
		get_count(start + count_size(r->flags), r->flags) : r->nitems;
	return get_count(start, r->flags);
}

void
contact_read_item(const ContactReader *r, ContactField field, int i, ContactItem *item)
{
	memset(item, 0, sizeof(*item));
	(void) read_item(r->entries + i * entry_size(r->flags), r->flags, r->body,
					 i > 0 ? item_end(r, i - 1) : 0, field, item);
}

uint8
contact_read_flags(const ContactReader *r, int i)
{
	return r->entries[i * entry_size(r->flags) + end_size(r->flags)] & 0x0f;
}

text *
contact_read_scalar(const ContactReader *r, ContactField field)
{
	const char *entry;
	const char *from;
	uint8		parts_flags;
	int			end;
	int			i = contact_read_field(r, field, &end);
	text	   *copy;
	int			len;

	Assert(!CF_IS_LIST(field));
	if (i == end)
		return NULL;
	entry = r->entries + i * entry_size(r->flags);
	parts_flags = entry[end_size(r->flags)];
	if (parts_flags & CI_TOMBSTONE)
		return NULL;
	from = r->body + (i > 0 ? item_end(r, i - 1) : 0);
	if (parts_flags >> 4 & PART_HEADER)
		return (text *) from;
	len = r->body + get_end(entry, r->flags) - from;
	copy = palloc(VARHDRSZ + len);
	SET_VARSIZE(copy, VARHDRSZ + len);
	memcpy(VARDATA(copy), from, len);
	return copy;
}

bool
contact_read_is_live(const ContactReader *r, ContactField field)
{
	int			end;

	for (int i = contact_read_field(r, field, &end); i < end; i++)
		if (!(contact_read_flags(r, i) & CI_TOMBSTONE))
			return true;
	return false;
}

bool
contact_read_find(const ContactReader *r, ContactField field, StrView key, ContactItem *item)
{
	ContactItem probe;
	int			hi;
	int			lo = contact_read_field(r, field, &hi);

	probe.field = field;
	probe.key = key;
	while (lo < hi)
	{
		int			mid = lo + (hi - lo) / 2;
		int			c;

		contact_read_item(r, field, mid, item);
		c = contact_item_cmp(item, &probe);
		if (c == 0)
			return !(item->flags & CI_TOMBSTONE);
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return false;
}
