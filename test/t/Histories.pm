# Random histories of forty persons in three sources, and what becomes of them.
package Histories;
use strict;
use warnings;
use Exporter 'import';
our @EXPORT = qw(pick random_event receive first_difference);

sub pick { return $_[ int rand @_ ] }

sub random_payload
{
	my ($person) = @_;
	my @m;
	push @m, q{"last_name": "} . pick('Lee', 'Lee', 'Roe') . '"' if rand() < .6;
	push @m, q{"first_name": } . pick('"Ann"', '"A."', '"Bob"', 'null') if rand() < .5;
	push @m, q{"company": } . pick('"Acme"', '"Home"', 'null') if rand() < .4;
	push @m, q{"title": } . pick('"CTO"', '"CEO"', '""') if rand() < .4;
	push @m, q{"note": } . pick('"a"', '"b"', 'null') if rand() < .5;
	push @m, q{"emails": [} . join(', ', map { qq("p$_\@x.org") } ($person, rand() < .1 ? int rand 40 : ())) . ']' if rand() < .7;
	push @m, q{"phones": } . pick('["+16502530000"]', '["+16502530001", "555"]', '[]') if rand() < .4;
	push @m, q{"tags": } . pick('["a"]', '["b", "c"]', '[]') if rand() < .3;
	push @m, q{"metadata": } . pick('{"k": 1}', '{"k": 2, "j": true}', '{"k": null}') if rand() < .4;
	return '{' . join(', ', @m) . '}';
}

# Of versions in days 1 to $days; one that brings a sighting, from day $sighted_from on.
sub random_event
{
	my ($days, $sighted_from) = @_;
	my $person = int rand 40;
	my $day = 1 + int rand $days;
	my $kind = pick(('snapshot') x 4, ('patch') x 5, 'delete', 'undelete');
	my $payload = $kind eq 'delete' || ($kind eq 'undelete' && rand() < .5) ? 'NULL' : "'" . random_payload($person) . "'";
	my $created = rand() < .3 ? sprintf("'2026-01-%02d'", 1 + int rand 28) : 'NULL';
	my $coverage = 'NULL';
	if ($kind eq 'snapshot' && rand() < .2)
	{
		$payload = q{'{"title": "T"}'};
		$coverage = pick(q{'{title,company}'}, q{'{title,metadata.k}'}, q{'{title}'});
	}
	# now and then with a receipt before its stamp: then copies have others
	if (rand() < .2)
	{
		return sprintf(q{INSERT INTO contactsync.inbox (source, source_id, kind, version, seq, payload, coverage, created, received_at, tolerance)
			VALUES ('%s', 'r%d', '%s', '2026-01-%02d', %d, %s, %s, %s, '2026-01-RECEIPT', 'TOLERANCE');},
			pick('crm', 'mkt', 'phone'), $person, $kind, $day, int rand 2, $payload, $coverage, $created);
	}
	# or as a write of ours that was confirmed, of another record's claims
	if ($kind eq 'patch' && rand() < .15)
	{
		my $origin = sprintf('{"source": "%s", "source_id": "r%d"}', pick('crm', 'mkt', 'phone'), $person);
		my $origins = join ', ', map { qq("$_": $origin) } qw(first_name last_name company title note emails phones tags metadata);
		return sprintf(q{INSERT INTO contactsync.inbox (source, source_id, kind, version, seq, payload, origins)
			VALUES ('%s', 'r%d', 'patch', '2026-01-%02d 00:00:%02d', %d, %s, '{%s}');},
			pick('crm', 'mkt', 'phone'), $person, $day, int rand 3, int rand 2, $payload, $origins);
	}
	# or as a run brings it: with a sighting, or as a delete by absence
	if (rand() < .3 && $day >= $sighted_from)
	{
		my $inferred = $kind eq 'delete' && rand() < .5;
		my $sighted = $inferred ? 'NULL' : sprintf("'2026-01-%02d'", 1 + int rand 22);
		return sprintf(q{INSERT INTO contactsync.inbox (source, source_id, kind, version, seq, payload, coverage, created, source_modified, sighted, inferred)
			VALUES ('%s', 'r%d', '%s', '2026-01-%02d 00:00:%02d', %d, %s, %s, %s, %s, %s, %s);},
			pick('crm', 'mkt', 'phone'), $person, $kind, $day, int rand 3, int rand 2, $payload, $coverage, $created,
			rand() < .3 ? sprintf("'2026-01-%02d'", 1 + int rand 28) : 'NULL', $sighted, $inferred ? 'true' : 'false');
	}
	# or of a source that knows since when its fields are so
	my $changed = rand() < .8 ? 'NULL' : "'{" . join(', ', map { sprintf('"%s": "2026-01-%02d"', $_, 1 + int rand 28) }
			grep { rand() < .5 } qw(last_name company title note emails phones tags metadata.k)) . "}'";
	return sprintf(q{SELECT contactsync.ingest('%s', 'r%d', %s, '2026-01-%02d 00:00:%02d', '%s', %d, NULL, %s, %s, %s);},
		pick('crm', 'mkt', 'phone'), $person, $payload, $day, int rand 3, $kind, int rand 2, $coverage, $created, $changed);
}

sub receive
{
	my ($event) = @_;
	my $at = 1 + int rand 15;
	my $tolerance = pick('5 min', '0', '5 days');
	return $event =~ s/RECEIPT/$at/r =~ s/TOLERANCE/$tolerance/r;
}

# All that is computed, in an order that does not depend on when it was.
our $content = q{
	SELECT * FROM (SELECT c.contact::text, c.live, (SELECT string_agg(r.source || '/' || r.source_id, ',' ORDER BY r.source, r.source_id)
			FROM contactsync.records r WHERE r.contact_id = c.id) AS members
	FROM contactsync.contacts c) s
		-- a dead one without records is but a name: see contact_aliases.reused_at
		WHERE live OR members IS NOT NULL ORDER BY members COLLATE "C";
	SELECT source, source_id, alive, zombie, source_modified, created, deleted_at, version, seen_at, gone_at, last_effective, last_seq, last_digest,
		same_version_conflicts, names, covered, uncovered, state::text, cleared::text FROM contactsync.records ORDER BY source, source_id;
	SELECT k.field, k.element, k.state, k.candidates FROM contactsync.conflicts k WHERE k.state <> 'superseded'
		ORDER BY k.candidates::text COLLATE "C", k.field;
	SELECT key, source, source_id, first_version FROM contactsync.identities i JOIN contactsync.records r ON r.id = record_id
		ORDER BY 1, 2, 3;
	SELECT source, source_id, digest, effective, CASE WHEN received_at < '2026-02-01' THEN received_at END,
		CASE WHEN received_at < '2026-02-01' THEN tolerance END
		FROM contactsync.observations o JOIN contactsync.records r ON r.id = record_id ORDER BY 1, 2, 3;
};

sub first_difference
{
	my @a = split /\n/, $_[0];
	my @b = split /\n/, $_[1];
	for my $i (0 .. ($#a > $#b ? $#a : $#b))
	{
		return "- " . ($a[$i] // '') . "\n+ " . ($b[$i] // '') if ($a[$i] // '') ne ($b[$i] // '');
	}
	return '';
}

1;
