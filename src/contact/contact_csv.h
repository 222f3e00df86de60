/*
 * contact_csv.h
 *		Columns of CSV files: contact_csv.c says what they mean,
 *		contact_csv_io.c is for SQL.
 */
#ifndef CONTACTSYNC_CONTACT_CSV_H
#define CONTACTSYNC_CONTACT_CSV_H

#include "contact/contact.h"

/* What a column is for; those before CSV_KINDS have types in other columns. */
enum
{
	CSV_EMAIL,
	CSV_PHONE,
	CSV_URL,
	CSV_ADDRESS,				/* sub: part */
	CSV_CUSTOM,
	CSV_KINDS,
	CSV_TYPE = CSV_KINDS,		/* sub: one of the above */
	CSV_SCALAR,					/* sub: field */
	CSV_NAME,					/* a whole name */
	CSV_BIRTH,					/* sub: 0 year, 1 month, 2 day */
	CSV_TAGS,
	CSV_QUIET,					/* metadata, unless it has a default's value */
	CSV_REPEATED,				/* metadata, unless other columns say it */
	CSV_UNKNOWN					/* metadata */
};

typedef struct CsvColumn
{
	uint8		what;			/* CSV_* */
	uint8		sub;			/* emails and phones: 1 = primary */
	int16		group;			/* columns that speak about one element */
	const char *type;			/* of the element, if the name says it */
	StrView		key;			/* in metadata */
} CsvColumn;

/* What columns of these names mean; keys are palloc'd. */
extern void contact_csv_resolve(const StrView *names, int n, CsvColumn *columns);
/* A line's contact, normalised and sorted.  Never throws for bad input. */
extern void contact_csv_map(const CsvColumn *columns, int ncolumns,
							const StrView *values, int nvalues,
							bool month_first, ContactValue *v);

#endif							/* CONTACTSYNC_CONTACT_CSV_H */
