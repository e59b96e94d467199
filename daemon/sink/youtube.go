package sink

type YouTubeOptions struct{}

func openYouTube(string, YouTubeOptions, string) (Store, error) { panic("x") }
