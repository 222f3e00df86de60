# The shipped connectors against an emulator of their providers, which is our reading
# of the documentation and no more.  Whatever a provider does, the next run ends where
# one that nothing disturbed would have: what it holds is what is here.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use JSON::PP;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($node, $dir) = peers_node('providers');
my ($emulator, $port) = start_providers($dir);

sub sql { return $node->safe_psql('postgres', "SET search_path = contactsync, public; $_[0]") }
# A run and what came of it: state, error code, kind, cause, certified.
sub run_source
{
	my ($source, $full) = @_;
	my $call = $full ? "sync('$source', true)" : "sync('$source')";
	return sql("SELECT $call AS run \\gset\nSELECT wait_for_run(:run, '60 s') AS state \\gset\n"
		. "SELECT concat_ws(' ', :'state', coalesce(error_code, '-'), kind, cause, CASE WHEN certified THEN 'certified' END) FROM runs WHERE id = :run");
}
sub last_error { return sql('SELECT error FROM runs ORDER BY id DESC LIMIT 1') }
# What the provider holds, and what is here of it: as records, and as contacts.
sub truth { return join("\n", sort map { join('|', @$_) } @{ control(op => 'people', provider => $_[0])->{people} }) }
sub here
{
	my ($source) = @_;
	my $rows = sql(qq{SELECT concat_ws('|', 'r', source_id, state ->> 'first_name', state ->> 'last_name', state -> 'emails' -> 0 ->> 'address', state ->> 'title')
		FROM records WHERE source = '$source' AND alive
		UNION ALL SELECT concat_ws('|', 'c', s.x ->> 'source_id', d.first_name, d.last_name, d.emails -> 0 ->> 'address', d.title)
		FROM directory d, LATERAL jsonb_array_elements(d.sources) s (x) WHERE s.x ->> 'source' = '$source'});
	return map { my $kind = $_; join("\n", sort map { /^$kind\|(.*)/ ? $1 : () } split(/\n/, $rows)) } 'r', 'c';
}
sub same_as
{
	my ($source, $provider, $name) = @_;
	my $truth = truth($provider);
	my ($records, $contacts) = here($source);
	my $ok = $records eq $truth && $contacts eq $truth;
	ok($ok, $name);
	diag("provider:\n$truth\nrecords:\n$records\ncontacts:\n$contacts") unless $ok;
}

sql('CREATE EXTENSION contactsync');
my %path = (google => '/google', graph => '/graph', hubspot => '/hubspot', salesforce => '', scim => '/scim');

for my $provider (sort keys %path)
{
	control(op => 'reset', provider => $provider, count => 60);
	control(op => 'set', provider => $provider, page => 20);
	my %size = $provider eq 'salesforce' ? () : (page_size => '20');
	my $settings = encode_json({ url => "http://127.0.0.1:$port$path{$provider}", parameters => \%size, poll => JSON::PP::false, rate => JSON::PP::false,
		allow_http => JSON::PP::true, allow_private => JSON::PP::true });
	sql(qq{SELECT add_source('$provider', '$provider', '$settings', '{"token": "tok"}')});

	# ---- first read, and what changed ----
	is(run_source($provider), 'succeeded - full request certified', "$provider: the first read is full") or diag(last_error());
	is(sql("SELECT items FROM runs ORDER BY id DESC LIMIT 1"), '60', "$provider: everybody");
	same_as($provider, $provider, "$provider: is here");
	my $incremental = $provider eq 'scim' ? 'full' : 'incremental';
	control(op => 'edit', provider => $provider, id => 1001, fields => { title => 'CTO' });
	control(op => 'edit', provider => $provider, id => 1059, fields => { last => "\u${provider}dottir" });
	control(op => 'create', provider => $provider, fields => { first => 'New', last => "Comer\u$provider", email => "new\@$provider.example", phone => '+44 20 7946 099' . length($provider), company => 'C', title => 'T' });
	control(op => 'delete', provider => $provider, id => 1005);
	like(run_source($provider), qr/^succeeded - $incremental/, "$provider: then what changed") or diag(last_error());
	# absence is believed the second time
	run_source($provider) if $provider eq 'scim';
	same_as($provider, $provider, "$provider: edited, created and deleted alike");
	my $before = sql('SELECT count(*) FROM observations');
	run_source($provider);
	is(sql('SELECT count(*) FROM observations'), $before, "$provider: what is read twice changes nothing");

	# ---- faults ----
	# the second page comes after the lists of folders
	my $second = $provider eq 'graph' ? 3 : 1;
	my $edits = 0;
	my @faults = ([ 'status:500', '08006' ], [ 'status:429', '08006' ], [ 'status:404', '08P01' ], [ 'html', '08P01' ], [ 'truncated', '08006' ],
		[ 'half', '22P02' ], [ 'reset', '08006' ], [ 'stall', '08006' ], [ 'drip', '08006' ],
		[ 'redirect:http://169.254.169.254/latest', '08P01' ], [ 'redirect:http://127.0.0.1:1/', '08P01' ]);
	# what is in front of the connector is the same for all
	@faults = grep { $_->[0] =~ /^(status:500|truncated|half|html)$/ } @faults if $provider ne 'google';
	push @faults, [ 'big', '54000' ], [ 'bomb', '54000' ] if $provider eq 'google';
	for my $fault (@faults)
	{
		my ($mode, $code) = @$fault;
		control(op => 'edit', provider => $provider, id => 1010 + $_, fields => { title => "Edit $edits" }) for 0 .. 29;
		$edits++;
		# on the second page, where there is one
		control(op => 'mode', provider => $provider, mode => $mode, skip => $second);
		set_timeout($node, 1) if $mode =~ /stall|drip/;
		like(run_source($provider), qr/^failed $code /, "$provider: $mode: " . last_error());
		set_timeout($node, 60) if $mode =~ /stall|drip/;
		control(op => 'mode', provider => $provider, mode => undef);
		like(run_source($provider), qr/^succeeded/, "$provider: after $mode the next run succeeds") or diag(last_error());
		same_as($provider, $provider, "$provider: and all is as if nothing had been");
	}
	my $loops = $provider =~ /google|graph|salesforce/;
	for my $mode ($loops ? ('loop', 'other_origin') : $provider eq 'hubspot' ? ('loop') : ())
	{
		next if $mode eq 'other_origin' && $provider eq 'google';
		control(op => 'mode', provider => $provider, mode => $mode);
		like(run_source($provider, 1), qr/^failed 08P01 full/, "$provider: $mode: " . last_error());
		control(op => 'mode', provider => $provider, mode => undef);
		run_source($provider);
		same_as($provider, $provider, "$provider: $mode did no harm");
	}
	is(scalar(grep { /steal/ } @{ control(op => 'log')->{requests} }), 0, "$provider: nobody else was asked");
	control(op => 'mode', provider => $provider, mode => 'duplicate');
	like(run_source($provider, 1), qr/^succeeded - full/, "$provider: duplicates on a page") or diag(last_error());
	control(op => 'mode', provider => $provider, mode => undef);
	same_as($provider, $provider, "$provider: change nothing");

	# ---- lists that lie ----
	control(op => 'mode', provider => $provider, mode => 'missing', skip => $second, times => 1);
	my $missing = run_source($provider, 1);
	control(op => 'mode', provider => $provider, mode => undef);
	same_as($provider, $provider, "$provider: a page that is missing once ($missing) deletes nobody");
	control(op => 'mode', provider => $provider, mode => 'empty');
	my @empty = (run_source($provider, 1), run_source($provider, 1));
	control(op => 'mode', provider => $provider, mode => undef);
	same_as($provider, $provider, "$provider: an empty list with status 200 ($empty[0]) deletes nobody");
	like(run_source($provider, 1), qr/^succeeded - full request certified/, "$provider: a full read");
	sql("SELECT reject_run(id) FROM runs WHERE held_deletes > 0");

	# ---- the cursor is lost ----
	next if $provider eq 'scim';
	control(op => 'edit', provider => $provider, id => 1020, fields => { title => 'After' });
	control(op => 'delete', provider => $provider, id => 1021);
	next if $provider eq 'hubspot';
	control(op => 'expire', provider => $provider);
	is(run_source($provider), 'succeeded - full cursor lost certified', "$provider: a lost cursor leads to a full read") or diag(last_error());
	like((here($provider))[0], qr/\|After$/m, "$provider: that brings what changed");
	# one of whom the list does not speak is gone when a second full read does not show it
	is(run_source($provider, 1), 'succeeded - full request certified', "$provider: a second full read");
	same_as($provider, $provider, "$provider: and what was deleted meanwhile is gone");
}

# ---- what is particular to a provider ----
sub title_of { return sql("SELECT title FROM directory WHERE emails -> 0 ->> 'address' = '$_[0]'") }

# Google: a person that goes by another name is no other person
my $id = sql(q{SELECT id FROM directory WHERE emails -> 0 ->> 'address' = 'p30@google.example'});
control(op => 'rename', provider => 'google', id => 1030);
is(run_source('google'), 'succeeded - incremental request', 'google: a resource name changes');
is(sql(qq{SELECT id = '$id', jsonb_array_length(sources), sources #>> '{0,source_id}' FROM directory WHERE emails -> 0 ->> 'address' = 'p30\@google.example'}),
	't|1|people/c1030x', 'google: the contact is the same, and the old name is gone');

# Graph: a change may come with some of the properties only
control(op => 'mode', provider => 'graph', mode => 'partial');
control(op => 'edit', provider => 'graph', id => 1031, fields => { title => 'Partial' });
control(op => 'edit', provider => 'graph', id => 1032, fields => { title => 'Partial, too' });
control(op => 'log');
is(run_source('graph'), 'succeeded - incremental request', 'graph: items that are not whole') or diag(last_error());
is(scalar(grep { m{^GET /graph/me/contactFolders/contacts/contacts/AAMk} } @{ control(op => 'log')->{requests} }), 2, 'graph: are fetched');
same_as('graph', 'graph', 'graph: and nothing is cleared');
control(op => 'mode', provider => 'graph', mode => undef);

# HubSpot: more changes than a search gives; history
control(op => 'set', provider => 'hubspot', page => 7);
control(op => 'edit', provider => 'hubspot', id => 1010 + $_, fields => { title => 'Many' }) for 0 .. 29;
control(op => 'log');
is(run_source('hubspot'), 'succeeded - incremental request', 'hubspot: changes on many pages');
my @searches = grep { /search/ } @{ control(op => 'log')->{requests} };
cmp_ok(scalar(@searches), '>', 5, 'hubspot: are asked for from id to id');
unlike("@searches", qr/"after"/, 'hubspot: and not by position, which ends at 10,000');
same_as('hubspot', 'hubspot', 'hubspot: with all of them');
control(op => 'set', provider => 'hubspot', page => 20);
sql(qq{UPDATE sources SET settings = jsonb_set(settings, '{parameters,history}', '"jobtitle"') WHERE name = 'hubspot'});
is(run_source('hubspot'), 'succeeded - full cursor lost certified', 'hubspot: another choice of fields needs a full read');
is(sql(q{SELECT count(*), min(o.version) < now() - interval '100 days', max(o.claims ->> 'title') FROM observations o JOIN records r ON r.id = o.record_id
	WHERE r.source = 'hubspot' AND r.source_id = '1055' AND o.kind = 'patch'}), '1|t|Title0', 'hubspot: the history of a field tells since when it is so');
same_as('hubspot', 'hubspot', 'hubspot: and the present is the present');

# Salesforce: a record that is gone from the recycle bin, too
control(op => 'purge', provider => 'salesforce', id => 1040);
is(run_source('salesforce'), 'succeeded - incremental request', 'salesforce: a hard delete') or diag(last_error());
same_as('salesforce', 'salesforce', 'salesforce: is in the list of deletes');
control(op => 'purge', provider => 'salesforce', id => 1042);
control(op => 'expire', provider => 'salesforce');
is(run_source('salesforce'), 'succeeded - full cursor lost certified', 'salesforce: deletes that are no longer listed');
is(run_source('salesforce', 1), 'succeeded - full request certified', 'salesforce: need full reads');
same_as('salesforce', 'salesforce', 'salesforce: and then nothing is left over');

# a provider's clock that is an hour ahead, or behind
for my $skew (3600, -3600)
{
	control(op => 'set', provider => 'hubspot', skew => $skew);
	control(op => 'edit', provider => 'hubspot', id => 1033, fields => { title => "Skew $skew" });
	run_source('hubspot');
	control(op => 'edit', provider => 'hubspot', id => 1034, fields => { title => "Skew $skew" });
	run_source('hubspot');
	is(join(',', map { sql("SELECT state ->> 'title' FROM records WHERE source = 'hubspot' AND source_id = '$_'") } 1033, 1034), "Skew $skew,Skew $skew",
		"a clock that is $skew s off loses no change");
}
control(op => 'set', provider => 'hubspot', skew => 0);

# ---- a run goes on through what passes ----
set_retries($node, 4);
for my $mode ([ 'status:503', 2 ], [ 'status:429:1', 1 ], [ 'reset', 1 ], [ 'limit', 1 ], [ 'status:429::{"policyName": "TEN_SECONDLY_ROLLING"}', 1 ])
{
	control(op => 'edit', provider => 'google', id => 1041, fields => { title => "Again $mode->[0]" });
	control(op => 'mode', provider => 'google', mode => $mode->[0], times => $mode->[1]);
	is(run_source('google'), 'succeeded - incremental request', "$mode->[0] passes: the run goes on") or diag(last_error());
	is(title_of('p41@google.example'), "Again $mode->[0]", 'to its end');
}
control(op => 'mode', provider => 'google', mode => 'status:429:3600', times => 1);
like(run_source('google'), qr/^failed 08006/, 'one that should come back in an hour does not wait');
control(op => 'mode', provider => 'salesforce', mode => 'status:403:1:[{"errorCode": "REQUEST_LIMIT_EXCEEDED"}]', times => 1);
is(run_source('salesforce'), 'succeeded - incremental request', 'a 403 that names a limit is one') or diag(last_error());
control(op => 'mode', provider => 'salesforce', mode => 'status:403', times => 1);
like(run_source('salesforce'), qr/^failed 28000/, 'and another one is not');
is(sql(q{SELECT state FROM status WHERE source = 'salesforce'}), 'stopped', 'it stops the source');

# ---- where a request may go ----
sql(qq{SELECT add_source('name', 'scim', '{"url": "http://localhost:$port/scim", "poll": false, "allow_http": true}')});
like(run_source('name'), qr/^failed 08004/, 'a name that stands for a private address: ' . last_error());

# ---- the source goes while it is read ----
control(op => 'mode', provider => 'google', mode => 'stall', times => 1);
my $run = sql(q{SELECT sync('google')});
$node->poll_query_until('postgres', "SELECT state = 'running' FROM contactsync.runs WHERE id = $run") or die;
sql(q{DELETE FROM source_secrets WHERE source = 'google'; DELETE FROM runs WHERE source = 'google'; DELETE FROM sources WHERE name = 'google'});
like(run_source('graph'), qr/^succeeded/, 'a source that is gone stops nobody else');

# ---- pages that the header Link tells ----
control(op => 'reset', provider => 'scim', count => 8);
control(op => 'set', provider => 'scim', page => 3);
sql(q{SELECT add_connector('linked', '{"driver": "rest", "list": {"path": "/linked", "items": "$.people", "page": {"style": "link"}}, "item": {"id": "$.id", "version": "$.at"},
	"map": {"first_name": "$.first", "last_name": "$.last", "emails": [{"address": "$.mail"}]}}')});
sql(qq{SELECT add_source('linked', 'linked', '{"url": "http://127.0.0.1:$port/scim", "poll": false, "allow_http": true, "allow_private": true}', '{"token": "tok"}')});
is(run_source('linked'), 'succeeded - full request certified', 'the header Link leads from page to page') or diag(last_error());
is(sql(q{SELECT pages, items FROM runs WHERE source = 'linked'}), '3|8', 'to the last');
is(run_source('linked'), 'succeeded - full request certified', 'without a way to ask for what changed, every run is full');

# ---- a crash on each page of what changed, and of everything ----
sql(qq{SELECT add_source('google', 'google', '{"url": "http://127.0.0.1:$port/google", "parameters": {"page_size": "20"}, "rate": false, "poll": false, "allow_http": true, "allow_private": true}',
	'{"token": "tok"}')});
set_retries($node, 0);
sub crash_on_page
{
	my ($source, $page, $full) = @_;
	control(op => 'mode', provider => 'google', mode => 'stall', skip => $page, times => 1);
	my $run = sql("SELECT sync('$source'" . ($full ? ', true)' : ')'));
	$node->poll_query_until('postgres', "SELECT pages = $page AND state = 'running' FROM contactsync.runs WHERE id = $run") or die;
	$node->stop('immediate');
	# the request that was to stall may not have been sent
	control(op => 'mode', provider => 'google', mode => undef);
	$node->start;
	$node->poll_query_until('postgres', "SELECT state <> 'running' AND state <> 'queued' FROM contactsync.runs WHERE id = $run") or die;
	sql("SELECT wait_for_run($run)");
	is(sql("SELECT state, attempt FROM runs WHERE id = $run"), 'succeeded|2', "google: a crash on page $page" . ($full ? ' of everything' : '') . ': the run goes on') or diag(sql("SELECT error_code, error, progress, pages, items FROM runs WHERE id = $run"));
	same_as('google', 'google', 'google: to the same end');
}
crash_on_page('google', 2, 1);
control(op => 'edit', provider => 'google', id => 1010 + $_, fields => { title => 'Crash' }) for 0 .. 49;
crash_on_page('google', 1);
like(run_source('google'), qr/^succeeded - incremental/, 'google: and the cursor is good');

# ---- the seed case, which is polled by itself ----
sql(qq{SELECT add_source('crm', 'hubspot', '{"class": "crm", "webhook": true, "poll": "5 min", "write": ["personal"], "url": "http://127.0.0.1:$port/hubspot", "allow_http": true,
	"allow_private": true}', '{"token": "tok"}');
SELECT set_policy('business', 'source_priority', '{crm}');
SELECT set_policy('personal', 'source_priority', '{device,crm}');
SELECT set_policy('metadata.billing_contact', 'manual_review')});
ok($node->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM contactsync.runs WHERE source = 'crm' AND state = 'succeeded' AND certificate_applied)}), 'the seed case is read by itself');
same_as('crm', 'hubspot', 'and shows what HubSpot holds');

# ---- a limit of our own ----
control(op => 'reset', provider => 'scim', count => 3);
sql(qq{SELECT add_source('slow', 'scim', '{"url": "http://127.0.0.1:$port/scim", "poll": false, "allow_http": true, "allow_private": true, "parameters": {"page_size": "1"},
	"rate": {"requests": 2, "per": "1 s"}}', '{"token": "tok"}')});
like(run_source('slow'), qr/^succeeded/, 'a source that is asked no more than twice a second');
cmp_ok(sql(q{SELECT extract(epoch FROM finished_at - started_at) FROM runs WHERE source = 'slow'}), '>', 0.4, 'takes its time');

# ---- nobody waits for a provider that does not answer ----
control(op => 'mode', provider => 'google', mode => 'stall');
$run = sql(q{SELECT sync('google')});
$node->poll_query_until('postgres', "SELECT state = 'running' FROM contactsync.runs WHERE id = $run") or die;
my $begun = time;
$node->safe_psql('postgres', 'DROP EXTENSION contactsync');
cmp_ok(time - $begun, '<=', 5, 'the extension can be dropped while a provider is silent');
$node->safe_psql('postgres', qq{CREATE EXTENSION contactsync; SELECT contactsync.add_source('google', 'google', '{"url": "http://127.0.0.1:$port/google", "poll": false, "allow_http": true,
	"allow_private": true}', '{"token": "tok"}')});
$run = sql(q{SELECT sync('google')});
$node->poll_query_until('postgres', "SELECT state = 'running' FROM contactsync.runs WHERE id = $run") or die;
$begun = time;
$node->stop('fast');
cmp_ok(time - $begun, '<=', 5, 'and the server stopped');
unlike(slurp_file($node->logfile), qr/TRAP|PANIC/, 'no assertion failed');
$emulator->kill_kill;
done_testing();
