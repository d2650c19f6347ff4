exec(open('/tmp/subs.py').read())
sub(S+'notifications.py',('''    IdempotencyKey,
    Locale,''','''    IdempotencyKey,
    Locale,'''))
RP=G+'reporting/'
sub(RP+'slice_counts.py',('''    country: str
    category: str

''','''    country: str
    category: str
    project: str

'''),('''  b.category,
  number.prefix,''','''  b.category,
  coalesce(n.project, '') AS project,
  number.prefix,'''),('GROUP BY 1, 2, 3, 4, 5, 7\n','GROUP BY 1, 2, 3, 4, 5, 6, 8\n'),('_country(row.sample), row.category)','_country(row.sample), row.category, row.project)'))
s=open(RP+'rollups.py').read()
s=s.replace('''  country,
  category
"""''','''  country,
  category,
  project
"""''')
s=s.replace('ON CONFLICT (day, slice, template, blast, country, category) DO','ON CONFLICT (day, slice, template, blast, country, category, project) DO')
s=s.replace('(r.day, r.template, r.blast, r.country, r.category) = (g.day, g.template, g.blast, g.country, g.category)','({_KEY_OF_R}) = ({_KEY_OF_G})')
open(RP+'rollups.py','w').write(s)
