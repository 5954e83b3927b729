package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"
	"unicode"
)

// fonts are what the viewer has of these.
const fonts = "Inter, 'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif"

// A canvas collects the elements of an SVG file.
type canvas struct{ bytes.Buffer }

func escape(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a Buffer takes everything
	return b.String()
}

// num writes a coordinate: a tenth of a pixel is enough.
func num(v float64) string {
	s := fmt.Sprintf("%.1f", v)
	return strings.TrimSuffix(strings.Replace(s, "-0.0", "0.0", 1), ".0")
}

func (c *canvas) rect(x, y, w, h float64, attributes string) {
	fmt.Fprintf(c, `<rect x="%s" y="%s" width="%s" height="%s" %s/>`+"\n", num(x), num(y), num(w), num(h), attributes)
}

func (c *canvas) line(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(c, `<line class="%s" x1="%s" y1="%s" x2="%s" y2="%s"/>`+"\n", class, num(x1), num(y1), num(x2), num(y2))
}

func (c *canvas) path(d, class string) {
	if d != "" {
		fmt.Fprintf(c, `<path class="%s" d="%s"/>`+"\n", class, d)
	}
}

// text writes s at x, y; anchor is start, middle or end.
func (c *canvas) text(x, y float64, anchor, class, s string) {
	fmt.Fprintf(c, `<text class="%s" x="%s" y="%s" text-anchor="%s">%s</text>`+"\n", class, num(x), num(y), anchor, escape(s))
}

// clip shortens s so that it is no wider than width.
func clip(s string, width, size float64) string {
	if textWidth(s, size) <= width {
		return s
	}
	runes := []rune(s)
	for len(runes) > 0 && textWidth(string(runes)+"…", size) > width {
		runes = runes[:len(runes)-1]
	}
	return string(runes) + "…"
}

// textWidth estimates how wide s is in a sans serif font of the size: one of the widest
// in use, DejaVu Sans, in bold.
func textWidth(s string, size float64) float64 {
	em := 0.0
	for _, r := range s {
		switch {
		case strings.ContainsRune("ilj.,:;'|! ", r):
			em += 0.37
		case strings.ContainsRune("tfr()[]/-", r):
			em += 0.48
		case strings.ContainsRune("mwMW@%", r):
			em += 1.05
		case unicode.IsUpper(r):
			em += 0.77
		default:
			em += 0.69
		}
	}
	return em * size
}
