# The same events give the same contacts, in whatever order, batches and number
# of copies they come: through the real ingest and process.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Histories;
use List::Util qw(shuffle);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{SEED} || time;
srand($seed);
note("SEED=$seed repeats this run");

my $node = PostgreSQL::Test::Cluster->new('convergence');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'contactsync'\ncontactsync.enabled = off\nfsync = off");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION contactsync;
	SELECT contactsync.add_source(s, 'canonical', jsonb_build_object('class', c))
	FROM (VALUES ('crm', 'crm'), ('mkt', 'crm'), ('phone', 'device')) v (s, c);
});

# Every rule on every kind of cell, in turn.
my @policies = (
	q{{"job": {"rule": "source_priority", "sources": ["device", "crm"]}, "note": "manual_review", "phones": "last_write_wins",
		"tags": {"rule": "source_priority", "sources": ["mkt"]}, "metadata.k": "manual_review", "name": "most_frequent"}},
	q{{"job": "most_frequent", "note": "oldest", "phones": "most_frequent", "tags": "oldest", "metadata": "most_frequent",
		"emails.primary": "most_frequent", "name": "most_complete"}},
	q{{"job": "most_complete", "note": "most_frequent", "phones": "verified_first", "tags": "most_complete", "metadata": "manual_review",
		"emails": "most_complete", "phones.primary": "oldest", "name": "oldest"}},
	q{{"job": "oldest", "nickname": {"rule": "most_frequent", "sources": ["crm"], "only": true}, "phones": "oldest", "tags": "most_frequent",
		"work": {"rule": "manual_review", "members": ["title", "note"]}, "metadata.k": "oldest", "name": "manual_review", "emails": "verified_first"}});

<<<<<<< HEAD
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

sub random_event
{
	my $person = int rand 40;
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
			pick('crm', 'mkt', 'phone'), $person, $kind, 1 + int rand 20, int rand 2, $payload, $coverage, $created);
	}
	# or as a run brings it: with a sighting, or as a delete by absence
	if (rand() < .3)
	{
		my $inferred = $kind eq 'delete' && rand() < .5;
		my $sighted = $inferred ? 'NULL' : sprintf("'2026-01-%02d'", 1 + int rand 22);
		return sprintf(q{INSERT INTO contactsync.inbox (source, source_id, kind, version, seq, payload, coverage, created, source_modified, sighted, inferred)
			VALUES ('%s', 'r%d', '%s', '2026-01-%02d 00:00:%02d', %d, %s, %s, %s, %s, %s, %s);},
			pick('crm', 'mkt', 'phone'), $person, $kind, 1 + int rand 20, int rand 3, int rand 2, $payload, $coverage, $created,
			rand() < .3 ? sprintf("'2026-01-%02d'", 1 + int rand 28) : 'NULL', $sighted, $inferred ? 'true' : 'false');
	}
	return sprintf(q{SELECT contactsync.ingest('%s', 'r%d', %s, '2026-01-%02d 00:00:%02d', '%s', %d, NULL, %s, %s);},
		pick('crm', 'mkt', 'phone'), $person, $payload, 1 + int rand 20, int rand 3, $kind, int rand 2, $coverage, $created);
}

sub receive
{
	my ($event) = @_;
	my $at = 1 + int rand 15;
	my $tolerance = pick('5 min', '0', '5 days');
	return $event =~ s/RECEIPT/$at/r =~ s/TOLERANCE/$tolerance/r;
}

my $content = q{
	SELECT * FROM (SELECT c.contact::text, c.live, (SELECT string_agg(r.source || '/' || r.source_id, ',' ORDER BY r.source, r.source_id)
			FROM contactsync.records r WHERE r.contact_id = c.id) AS members
	FROM contactsync.contacts c) s ORDER BY members COLLATE "C";
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

=======
>>>>>>> 804ef40 (Compact old observations into a base; keep what comes too late apart)
for my $history (1 .. 4)
{
	my @templates = map { random_event(20, 1) } 1 .. 350;
	my @events = (map({ receive($_) } @templates), map { receive($_) } grep { /RECEIPT/ } @templates);
	my $first;
	my $policy = $policies[($history - 1) % @policies];
	$node->safe_psql('postgres', "INSERT INTO contactsync.policies (version, policy)
		SELECT coalesce(max(version), 0) + 1, '$policy' FROM contactsync.policies");
	for my $round (1 .. 5)
	{
		my @order = $round == 1 ? @events : shuffle(@events, map { pick(@events) } 1 .. 100);
		my $sql = q{TRUNCATE contactsync.records, contactsync.observations, contactsync.contacts, contactsync.identities,
			contactsync.contact_aliases, contactsync.conflicts, contactsync.inbox;};
		my $batch = $round == 1 ? 10000 : pick(1, 3, 20, 500);
		$sql .= "SET contactsync.batch_size = $batch;";
		for my $i (0 .. $#order)
		{
			$sql .= $order[$i];
			$sql .= 'SELECT contactsync.process();' if $round > 1 && rand() < .1;
		}
		$sql .= 'SELECT contactsync.process();';
		$node->safe_psql('postgres', $sql);
		is($node->safe_psql('postgres', 'SELECT count(*) FROM contactsync.inbox'), '0', "history $history, order $round: all applied");
		my $got = $node->safe_psql('postgres', $Histories::content);
		$first = $got if $round == 1;
		ok($got eq $first, "history $history, order $round, batches of $batch: the same contacts")
		  or diag("SEED=$seed\n" . first_difference($first, $got));
	}
}

$node->stop;
done_testing();
