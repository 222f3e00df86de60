/*
 * contact_layout.c
 *		The stored form of a contact.
 *
 * After the varlena header, all numbers in host order and read by memcpy, so
 * that a short header does no harm:
 *
 *	u8 version, u8 flags, u16 nitems, u16 nstamps, u16 nsources
 *	u32 field map				bit per field that has items
 *	u16 start[popcount(map)]	index of each present field's first item,
 *	entry[nitems]				u32 end of its bytes in the body : 24, field : 8
 *								u8 parts : 4, flags : 4
 *								u8 stamp + 1, or u16 if flags has LAYOUT_WIDE
 *	stamp[nstamps]				i64 as_of, i64 changed_at, u16 source, u8 flags,
 *								u8 zero; sorted, equal stamps are stored once
 *	u32 source end[nsources], source names
 *	body						bytes of the items, in order
 *
 * An item's bytes are the parts that its "parts" byte names, each with a
 * length before it, and then its value, which needs none.  A key that equals
 * the value is not stored twice.  Items stand in canonical order, hot fields
 * first, so equal values are equal bytes and a slice serves the accessors: they
 * use a ContactReader, which finds a field without looking at any other.
 */
#include "postgres.h"

#include "port/pg_bitutils.h"

#include "compat.h"
#include "contact/contact.h"

#define LAYOUT_VERSION		1

/* header flag: more stamps than a byte can name */
#define LAYOUT_WIDE			0x01

/* what an item's bytes hold before its value: four bits of an entry */
#define PART_KEY			0x01	/* else the key equals the value */
#define PART_NOKEY			0x02	/* no key at all */
#define PART_TYPE			0x04
#define PART_EXTENSION		0x08

/* the parts of an address need no bit */
#define HAS_ADDRESS(field_, flags_) \
	((field_) == CF_ADDRESSES && !((flags_) & CI_TOMBSTONE))

typedef struct LayoutHeader
{
	uint8		version;
	uint8		flags;
	uint16		nitems;
	uint16		nstamps;
	uint16		nsources;
	uint32		map;
} LayoutHeader;

typedef struct LayoutEntry
{
	uint32		end_field;		/* end << 8 | field */
	uint8		flags;
	uint8		parts;
	uint16		stamp;			/* index + 1, 0 = none */
} LayoutEntry;

#define ENTRY_SIZE(wide_)	((wide_) ? 7 : 6)	/* of a LayoutEntry as stored */

typedef struct LayoutStamp
{
	int64		as_of;
	int64		changed_at;
	uint16		source;
	uint8		flags;
	uint8		zero;
	uint32		pad;
} LayoutStamp;

#define STAMP_SIZE			20	/* of a LayoutStamp as stored */

static void
put_entry(char *p, bool wide, const LayoutEntry *entry)
{
	memcpy(p, &entry->end_field, sizeof(entry->end_field));
	p[4] = (char) (entry->parts << 4 | entry->flags);
	if (wide)
		memcpy(p + 5, &entry->stamp, sizeof(entry->stamp));
	else
		p[5] = (char) entry->stamp;
}

static inline void
get_entry(const char *p, bool wide, LayoutEntry *entry)
{
	memcpy(&entry->end_field, p, sizeof(entry->end_field));
	entry->flags = p[4] & 0x0f;
	entry->parts = (uint8) p[4] >> 4;
	if (wide)
		memcpy(&entry->stamp, p + 5, sizeof(entry->stamp));
	else
		entry->stamp = (uint8) p[5];
}

static inline int
varint_size(uint32 n)
{
	return n < 0x80 ? 1 : n < 0x4000 ? 2 : n < 0x200000 ? 3 : 4;
}

static char *
put_part(char *p, StrView s)
{
	uint32		n = s.len;

	while (n >= 0x80)
	{
		*p++ = (char) (n | 0x80);
		n >>= 7;
	}
	*p++ = (char) n;
	if (s.len > 0)
		memcpy(p, s.ptr, s.len);
	return p + s.len;
}

static const char *
get_part(const char *p, StrView *s)
{
	uint32		n = 0;
	int			shift = 0;

	do
	{
		n |= (uint32) (*p & 0x7f) << shift;
		shift += 7;
	} while (*p++ & 0x80);
	s->ptr = n > 0 ? p : NULL;
	s->len = n;
	return p + n;
}

static inline int
part_size(StrView s)
{
	return varint_size(s.len) + s.len;
}

static uint8
item_parts(const ContactItem *item)
{
	uint8		parts = 0;

	if (item->key.len == 0)
		parts |= PART_NOKEY;
	else if (item->key.len != item->value.len ||
			 memcmp(item->key.ptr, item->value.ptr, item->key.len) != 0)
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

	if (parts & PART_KEY)
		size += part_size(item->key);
	if (parts & PART_TYPE)
		size += part_size(item->type);
	if (parts & PART_EXTENSION)
		size += part_size(item->extension);
	if (HAS_ADDRESS(item->field, item->flags))
	{
		for (int i = 0; i < CA_COUNT; i++)
			size += part_size(item->part[i]);
	}
	return size;
}

bool
contact_fits(const ContactValue *v, ContactError *error)
{
	Size		size = 0;

	/* in text, each stamped item repeats its key and its source */
	for (int i = 0; i < v->nitems; i++)
	{
		const ContactItem *item = &v->items[i];

		size += item_size(item, item_parts(item));
		if (item->stamp >= 0)
			size += item->key.len + v->stamps[item->stamp].source.len;
	}
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
	uint16	   *source_of;		/* by index here */
	StrView    *sources;
	int			nsources;
	Size		names;			/* length of the sources together */
} StampTable;

static void
collect_stamps(const ContactValue *v, StampTable *t)
{
	int			n = 0;

	memset(t, 0, sizeof(*t));
	t->stamps = palloc(sizeof(ContactStamp *) * Max(v->nstamps, 1));
	t->stamp_of = palloc0(sizeof(uint16) * Max(v->nstamps, 1));
	t->source_of = palloc(sizeof(uint16) * Max(v->nstamps, 1));
	t->sources = palloc(sizeof(StrView) * Max(v->nstamps, 1));
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
			if (t->nsources == 0 || strview_cmp(t->sources[t->nsources - 1], stamp->source) != 0)
			{
				t->sources[t->nsources++] = stamp->source;
				t->names += stamp->source.len;
			}
			t->source_of[t->nstamps] = t->nsources - 1;
			t->stamps[t->nstamps++] = stamp;
		}
		t->stamp_of[stamp - v->stamps] = t->nstamps;
	}
}

static void
free_stamps(StampTable *t)
{
	pfree(t->stamps);
	pfree(t->stamp_of);
	pfree(t->source_of);
	pfree(t->sources);
}

static void
put_stamps(char *p, const StampTable *t)
{
	uint32		end = 0;

	for (int i = 0; i < t->nstamps; i++)
	{
		LayoutStamp stamp = {0};

		stamp.as_of = t->stamps[i]->as_of;
		stamp.changed_at = t->stamps[i]->changed_at;
		stamp.source = t->source_of[i];
		stamp.flags = t->stamps[i]->flags;
		memcpy(p, &stamp, STAMP_SIZE);
		p += STAMP_SIZE;
	}
	for (int i = 0; i < t->nsources; i++)
	{
		end += t->sources[i].len;
		memcpy(p, &end, sizeof(end));
		p += sizeof(end);
	}
	for (int i = 0; i < t->nsources; i++)
	{
		memcpy(p, t->sources[i].ptr, t->sources[i].len);
		p += t->sources[i].len;
	}
}

/* An item's bytes, as its parts say. */
static char *
put_item(char *p, const ContactItem *item, uint8 parts)
{
	if (parts & PART_KEY)
		p = put_part(p, item->key);
	if (parts & PART_TYPE)
		p = put_part(p, item->type);
	if (parts & PART_EXTENSION)
		p = put_part(p, item->extension);
	if (HAS_ADDRESS(item->field, item->flags))
	{
		for (int i = 0; i < CA_COUNT; i++)
			p = put_part(p, item->part[i]);
	}
	if (item->value.len > 0)
		memcpy(p, item->value.ptr, item->value.len);
	return p + item->value.len;
}

Contact *
contact_form(const ContactValue *v)
{
	LayoutHeader head = {0};
	StampTable	t;
	ContactError error;
	Size		body = 0;
	Size		size;
	int			nfields;
	int			entry_size;
	Contact    *c;
	char	   *p;
	char	   *bytes;
	uint32		end = 0;

	if (!contact_fits(v, &error))
		contact_error_report(&error, NULL);
	collect_stamps(v, &t);
	for (int i = 0; i < v->nitems; i++)
	{
		head.map |= CF_BIT(v->items[i].field);
		body += item_size(&v->items[i], item_parts(&v->items[i]));
	}

	head.version = LAYOUT_VERSION;
	head.nitems = v->nitems;
	head.nstamps = t.nstamps;
	if (head.nstamps >= 0xff)
		head.flags |= LAYOUT_WIDE;
	entry_size = ENTRY_SIZE(head.flags & LAYOUT_WIDE);
	head.nsources = t.nsources;
	nfields = pg_popcount32(head.map);
	size = VARHDRSZ + sizeof(head) + nfields * sizeof(uint16) +
		v->nitems * entry_size + head.nstamps * STAMP_SIZE +
		head.nsources * sizeof(uint32) + t.names + body;
	c = palloc0(size);
	SET_VARSIZE(c, size);
	p = c->data;
	memcpy(p, &head, sizeof(head));
	p += sizeof(head);

	for (int i = 0, n = 0; i < v->nitems; i++)
	{
		uint16		start = i;

		if (i == 0 || v->items[i - 1].field != v->items[i].field)
			memcpy(p + sizeof(uint16) * n++, &start, sizeof(start));
	}
	p += nfields * sizeof(uint16);

	bytes = (char *) c + size - body;
	for (int i = 0; i < v->nitems; i++)
	{
		const ContactItem *item = &v->items[i];
		LayoutEntry entry = {0};

		entry.parts = item_parts(item);
		end += item_size(item, entry.parts);
		entry.end_field = end << 8 | item->field;
		entry.flags = item->flags;
		entry.stamp = item->stamp < 0 ? 0 : t.stamp_of[item->stamp];
		put_entry(p, head.flags & LAYOUT_WIDE, &entry);
		p += entry_size;
		bytes = put_item(bytes, item, entry.parts);
	}
	put_stamps(p, &t);
	free_stamps(&t);
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
				 errhint("It was written by a later release of contactsync.")));
}

/*
 * Read the item of an entry, whose bytes begin at "begin" of the body, into
 * zeroed memory.  The result is where they end.
 */
static inline uint32
read_item(const char *stored, bool wide, const char *body, uint32 begin, ContactItem *item)
{
	LayoutEntry entry;
	const char *from = body + begin;
	uint32		end;

	get_entry(stored, wide, &entry);
	end = entry.end_field >> 8;
	item->field = entry.end_field & 0xff;
	item->flags = entry.flags;
	item->stamp = (int16) entry.stamp - 1;
	if (entry.parts & PART_KEY)
		from = get_part(from, &item->key);
	if (entry.parts & PART_TYPE)
		from = get_part(from, &item->type);
	if (entry.parts & PART_EXTENSION)
		from = get_part(from, &item->extension);
	if (HAS_ADDRESS(item->field, item->flags))
	{
		for (int j = 0; j < CA_COUNT; j++)
			from = get_part(from, &item->part[j]);
	}
	item->value.len = body + end - from;
	item->value.ptr = item->value.len > 0 ? from : NULL;
	if (!(entry.parts & (PART_KEY | PART_NOKEY)))
		item->key = item->value;
	return end;
}

/* Where an item's bytes end in the body. */
static inline uint32
item_end(const ContactReader *r, int i)
{
	uint32		end_field;

	memcpy(&end_field, r->entries + i * ENTRY_SIZE(r->wide), sizeof(end_field));
	return end_field >> 8;
}

void
contact_deform(const Contact *c, ContactValue *v)
{
	LayoutHeader head;
	const char *p = c->data;
	const char *entries;
	const char *names;
	const char *source_ends;
	const char *bytes;
	uint32		begin = 0;
	uint32		names_len = 0;

	memcpy(&head, p, sizeof(head));
	check_version(head.version);
	p += sizeof(head) + pg_popcount32(head.map) * sizeof(uint16);
	entries = p;
	p += head.nitems * ENTRY_SIZE(head.flags & LAYOUT_WIDE);

	v->nitems = head.nitems;
	v->nstamps = head.nstamps;
	v->items = palloc0(sizeof(ContactItem) * Max(head.nitems, 1));
	v->stamps = palloc0(sizeof(ContactStamp) * Max(head.nstamps, 1));

	source_ends = p + head.nstamps * STAMP_SIZE;
	names = source_ends + head.nsources * sizeof(uint32);
	for (int i = 0; i < head.nstamps; i++, p += STAMP_SIZE)
	{
		LayoutStamp stamp;
		uint32		from = 0;
		uint32		to;

		memcpy(&stamp, p, STAMP_SIZE);
		if (stamp.source > 0)
			memcpy(&from, source_ends + (stamp.source - 1) * sizeof(uint32), sizeof(from));
		memcpy(&to, source_ends + stamp.source * sizeof(uint32), sizeof(to));
		v->stamps[i].source.ptr = names + from;
		v->stamps[i].source.len = to - from;
		v->stamps[i].as_of = stamp.as_of;
		v->stamps[i].changed_at = stamp.changed_at;
		v->stamps[i].flags = stamp.flags;
	}
	if (head.nsources > 0)
		memcpy(&names_len, source_ends + (head.nsources - 1) * sizeof(uint32), sizeof(names_len));

	bytes = names + names_len;
	for (int i = 0; i < head.nitems; i++)
	{
		begin = read_item(entries, head.flags & LAYOUT_WIDE, bytes, begin, &v->items[i]);
		entries += ENTRY_SIZE(head.flags & LAYOUT_WIDE);
	}
}

/*
 * Note in the reader where things are; "have" bytes of the value are there.
 * The result is how many it takes to read the items of the given fields (or
 * only to know of them): if that is more, the caller comes back with more.
 */
#define WHOLE			PG_UINT32_MAX	/* all of it is there */

static inline Size
locate(ContactReader *r, const char *data, Size have, uint32 fields, bool bytes)
{
	LayoutHeader head;
	uint32		names = 0;
	uint32		wanted;
	Size		at;
	int			last;

	memcpy(&head, data, sizeof(head));
	check_version(head.version);
	r->starts = data + sizeof(head);
	r->map = head.map;
	r->nitems = head.nitems;
	at = sizeof(head) + pg_popcount32(head.map) * sizeof(uint16);
	r->entries = data + at;
	r->wide = head.flags & LAYOUT_WIDE;
	at += head.nitems * ENTRY_SIZE(r->wide);
	wanted = head.map & fields;
	if (!bytes || wanted == 0)
		return at;

	at += head.nstamps * STAMP_SIZE + head.nsources * sizeof(uint32);
	if (at > have)
		return at;
	if (head.nsources > 0)
		memcpy(&names, data + at - sizeof(names), sizeof(names));
	at += names;
	r->body = data + at;
	if (have == WHOLE)
		return 0;
	(void) contact_read_field(r, pg_leftmost_one_pos32(wanted), &last);
	return at + item_end(r, last - 1);
}

/*
 * Bytes of a toasted value that are fetched at first: entries, stamps and hot
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
	uint16		start;
	uint16		next = r->nitems;
	uint32		above;

	if (!(r->map & CF_BIT(field)))
		return *end = 0;
	above = r->map & ~(CF_BIT(field) | (CF_BIT(field) - 1));
	memcpy(&start, r->starts + sizeof(start) * pg_popcount32(r->map & (CF_BIT(field) - 1)),
		   sizeof(start));
	if (above)
		memcpy(&next, r->starts + sizeof(next) * pg_popcount32(r->map & ~above), sizeof(next));
	*end = next;
	return start;
}

void
contact_read_item(const ContactReader *r, int i, ContactItem *item)
{
	memset(item, 0, sizeof(*item));
	(void) read_item(r->entries + i * ENTRY_SIZE(r->wide), r->wide, r->body,
					 i > 0 ? item_end(r, i - 1) : 0, item);
}

bool
contact_read_scalar(const ContactReader *r, ContactField field, StrView *value)
{
	LayoutEntry entry;
	int			end;
	int			i = contact_read_field(r, field, &end);
	uint32		from;

	if (i == end)
		return false;
	get_entry(r->entries + i * ENTRY_SIZE(r->wide), r->wide, &entry);
	if (entry.flags & CI_TOMBSTONE)
		return false;
	/* a scalar has no key, no type: its bytes are its value */
	Assert(entry.parts == PART_NOKEY);
	from = i > 0 ? item_end(r, i - 1) : 0;
	value->ptr = r->body + from;
	value->len = (entry.end_field >> 8) - from;
	return true;
}

uint8
contact_read_flags(const ContactReader *r, int i)
{
	return r->entries[i * ENTRY_SIZE(r->wide) + 4] & 0x0f;
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

		contact_read_item(r, mid, item);
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
