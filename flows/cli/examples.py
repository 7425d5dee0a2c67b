"""An example of each command, shown at the end of its `--help`."""

EXAMPLES = {
    "demo": "effivmt demo --out demo",
    "transfer": 'effivmt transfer dog.mp4 --caption "a dog running" --prompt "a fox running" --preview --out out',
    "new": 'effivmt new films.csv films --prompt "a fox running"',
    "run": "effivmt run films.csv --out out --dry-run",
    "serve": 'effivmt serve films.csv --cron "0 2 * * *" --timezone Europe/Berlin --out out',
    "stage": "effivmt stage ingest films.csv --out data/stages",
    "render": (
        'effivmt render out/pan/adapter out/dog/adapter --prompt "a cat" --set render.motion_boundary=0.5 --out cat.mp4'
    ),
    "merge": "effivmt merge out/dog/adapter out/fox/adapter --motion 1 --motion 0 --out dog-and-fox",
    "evaluate": 'effivmt evaluate dog.mp4 cat.mp4 --prompt "a cat running"',
    "animate": "effivmt animate out/dog --out dog.webp",
    "bench": "effivmt bench --suite quick --method effivmt --method motion-director",
    "pull": "effivmt pull models:/effivmt-dog@champion --out dog-adapter",
    "sync": "effivmt sync out",
    "plan": "effivmt plan --params wan2.1-14b --set backbone.memory=24",
    "doctor": "effivmt doctor --params wan2.1-1.3b --store /data/store",
    "pretrain": "effivmt pretrain transformer --work .effivmt/pretrain",
}
